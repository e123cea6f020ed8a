/**
 * Memory that system calls may read and write. V8 never moves the bytes behind an ArrayBuffer, so an address is taken
 * once per buffer and remembered: asking koffi for it at every packet would cost more than the call itself.
 */
import koffi from 'koffi';

const bases = new WeakMap<ArrayBufferLike, number>();
let lastBuffer: ArrayBufferLike | undefined;
let lastBase = 0;

/**
 * The address of byte `off` of `view`. The caller keeps `view` referenced for as long as the kernel may use the
 * address, which for a plain system call is the call itself.
 */
export function addressIn(view: Uint8Array, off: number): number {
  // Reading `buffer` also moves the bytes of a small array out of V8's heap, after which they stay where they are.
  const buffer = view.buffer;
  if (buffer !== lastBuffer) {
    let base = bases.get(buffer);
    if (base === undefined) {
      base = Number(koffi.address(new Uint8Array(buffer)));
      bases.set(buffer, base);
    }
    lastBuffer = buffer;
    lastBase = base;
  }
  return lastBase + view.byteOffset + off;
}

/** A piece of zeroed memory for C structures, which lives as long as this object. */
export class NativeMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: number;

  constructor(lengthBytes: number) {
    this.bytes = new Uint8Array(new ArrayBuffer(lengthBytes));
    this.view = new DataView(this.bytes.buffer);
    this.address = addressIn(this.bytes, 0);
  }

  /** Writes a C string at `off` and returns its address. */
  cString(off: number, text: string): number {
    const { written } = new TextEncoder().encodeInto(text, this.bytes.subarray(off, this.bytes.length - 1));
    this.bytes[off + written] = 0;
    return this.address + off;
  }

  /** Stores a 64-bit pointer or length at `off`. */
  setPointer(off: number, value: number): void {
    this.view.setUint32(off, value >>> 0, true);
    this.view.setUint32(off + 4, Math.floor(value / 0x1_0000_0000), true);
  }

  /** Reads a 64-bit length or pointer at `off`; exact below 2^53. */
  pointer(off: number): number {
    return this.view.getUint32(off, true) + this.view.getUint32(off + 4, true) * 0x1_0000_0000;
  }
}
