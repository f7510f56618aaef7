/** What a server and its process for pictures tell each other. */

export interface DecodeAsked {
  readonly bytes: Uint8Array;
  readonly maxPixels: number;
  /** false: only the size */
  readonly pixels: boolean;
}

export type Decoded =
  | { readonly width: number; readonly height: number; readonly data?: Uint8Array | undefined }
  | { readonly error: string };

/** Code that the process ends with when a picture takes more memory than allowed. */
export const tooMuchMemory = 71;
