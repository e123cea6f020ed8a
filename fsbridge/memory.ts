/**
 * A block of memory that both JavaScript and system calls work on: requests are read into one, replies are built in
 * another, and file data goes from the host's read(2) straight into the reply. Views are made once, since making one
 * costs more than most requests do.
 */

/** The same bytes as bytes, as 32-bit words of the host's order, and as an address for native calls. */
export interface Memory {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  /** 0 where no native code is involved. */
  readonly address: number;
}

/** Allocates `size` bytes. `addressOf` is #common/native/libc's where system calls will see the memory. */
export function allocate(size: number, addressOf: (view: Uint8Array) => number = () => 0): Memory {
  const buffer = new ArrayBuffer((size + 7) & ~7);
  const bytes = Buffer.from(buffer);
  return { bytes, words: new Uint32Array(buffer), address: addressOf(bytes) };
}
