/** What a server and its process for pictures tell each other. */

/** Parts of a picture to hide: each from the left, from the top, its width and height, as fractions of the picture. */
export interface Hide {
  readonly regions: readonly (readonly [number, number, number, number])[];
  readonly by: 'grey' | 'blur';
}

export interface DecodeAsked {
  readonly bytes: Uint8Array;
  readonly maxPixels: number;
  /** `png`: the picture as the model sees it, in a file that holds nothing else */
  readonly want: 'size' | 'pixels' | 'png';
  /** of a picture that is wanted as `png` */
  readonly hide?: Hide | undefined;
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
