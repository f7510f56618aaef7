/** What a server and its process for pictures tell each other. */

export interface DecodeAsked {
  readonly bytes: Uint8Array;
  readonly maxPixels: number;
  /** `png`: the picture as the model sees it, in a file that holds nothing else */
  readonly want: 'size' | 'pixels' | 'png';
}

export interface Decoded {
  readonly width: number;
  readonly height: number;
  /** pixels, or the file */
  readonly data: Uint8Array;
  /** of a file: its pixels' hash */
  readonly id: string;
}

export type DecodeAnswer = Decoded | { readonly error: string };

/** Code that the process ends with when a picture takes more memory than allowed. */
export const tooMuchMemory = 71;
