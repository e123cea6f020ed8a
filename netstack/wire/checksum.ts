/**
 * The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit words.
 *
 * The sum does not care in which byte order words are added (RFC 1071 section 2 (B)), so long stretches are summed as the
 * machine's own 32-bit words in doubles (exact up to 2^53, which no 64 KiB packet reaches) and the result is swapped once.
 * A view of the memory as 32-bit words is kept for the last buffer used, because making one costs more than summing a
 * packet; all frames of a link live in one buffer.
 */
import { get16 } from './address.ts';

/** Below this many bytes the plain loop is faster than finding the aligned part. */
const WORDWISE_BYTES_MIN = 64;

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

let lastBuffer: ArrayBufferLike = new ArrayBuffer(0);
let lastWords: Uint32Array<ArrayBufferLike> = new Uint32Array(lastBuffer);

function wordsOf(buffer: ArrayBufferLike): Uint32Array<ArrayBufferLike> {
  if (buffer !== lastBuffer) {
    lastBuffer = buffer;
    lastWords = new Uint32Array(buffer, 0, buffer.byteLength >>> 2);
  }
  return lastWords;
}

/** Folds a sum of 16-bit words (exact, below 2^53) to 16 bits with end-around carry. */
export function fold(sum: number): number {
  let low = sum;
  if (low > 0xffff_ffff) low = (low % 0x1_0000_0000) + Math.floor(low / 0x1_0000_0000);
  if (low > 0xffff_ffff) low = low - 0x1_0000_0000 + 1;
  low = (low >>> 16) + (low & 0xffff);
  return (low >>> 16) + (low & 0xffff);
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

function sumBytes(buf: Uint8Array, off: number, len: number): number {
  const last = off + len - 1;
  let total = 0;
  let i = off;
  for (; i < last; i += 2) total += get16(buf, i);
  return i === last ? total + (buf[i]! << 8) : total;
}

/** The sum of the 32-bit words `from` (inclusive) to `to`, in the machine's order. */
function sumWords(words: Uint32Array<ArrayBufferLike>, from: number, to: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = from;
  for (; i + 7 < to; i += 8) {
    a += words[i]! + words[i + 4]!;
    b += words[i + 1]! + words[i + 5]!;
    c += words[i + 2]! + words[i + 6]!;
    d += words[i + 3]! + words[i + 7]!;
  }
  for (; i < to; i++) a += words[i]!;
  return a + b + c + d;
}

/** The folded sum of `len` bytes as big-endian 16-bit words; an odd last byte counts as the high half of a word. */
export function sum(buf: Uint8Array, off: number, len: number): number {
  if (len < WORDWISE_BYTES_MIN) return fold(sumBytes(buf, off, len));
  const start = buf.byteOffset + off;
  const lead = -start & 3;
  const words = (len - lead) >>> 2;
  const tail = off + lead + words * 4;
  const first = (start + lead) >>> 2;
  let middle = fold(sumWords(wordsOf(buf.buffer), first, first + words));
  // The aligned part begins `lead` bytes into the packet: when that is odd, its bytes sit in the other halves.
  if (littleEndian !== ((lead & 1) === 1)) middle = swap16(middle);
  let rest = sumBytes(buf, tail, off + len - tail);
  if (lead & 1) rest = swap16(fold(rest));
  return fold(sumBytes(buf, off, lead) + middle + rest);
}

/** The checksum to store: the complement of a sum. */
export function complement(sumValue: number): number {
  return ~fold(sumValue) & 0xffff;
}

/** The sum of an IPv4 pseudo header (RFC 9293 section 3.1), not folded. Addresses as numbers. */
export function pseudoIpv4(src: number, dst: number, protocol: number, len: number): number {
  return (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + len;
}

/** The sum of an IPv6 pseudo header (RFC 8200 section 8.1), not folded. Addresses are 16 bytes at an offset. */
export function pseudoIpv6(
  src: Uint8Array,
  srcOff: number,
  dst: Uint8Array,
  dstOff: number,
  protocol: number,
  len: number,
): number {
  return sumBytes(src, srcOff, 16) + sumBytes(dst, dstOff, 16) + protocol + (len >>> 16) + (len & 0xffff);
}

/** The pseudo header's sum for addresses of 16 bytes of either family (both of the same one). */
export function pseudo(
  ipv4: boolean,
  src: Uint8Array,
  srcOff: number,
  dst: Uint8Array,
  dstOff: number,
  protocol: number,
  len: number,
): number {
  if (!ipv4) return pseudoIpv6(src, srcOff, dst, dstOff, protocol, len);
  return sumBytes(src, srcOff + 12, 4) + sumBytes(dst, dstOff + 12, 4) + protocol + len;
}
