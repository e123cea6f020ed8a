/**
 * Initial sequence numbers that an attacker off the path cannot guess (RFC 6528): a clock that ticks every 4 µs, so that
 * an old incarnation's segments are not taken for a new one's, plus a keyed hash of the four-tuple. The hash is
 * SipHash-2-4 (Aumasson and Bernstein, 2012), on 32-bit halves since a 64-bit integer in JavaScript is a BigInt.
 */
import { assert } from '#common/errors';
import type { Rng } from '#common/rng';

/** SipHash-2-4 with a 128-bit key. One instance serves one caller at a time. */
export class SipHash {
  /** Key as four little-endian words. */
  readonly #key = new Int32Array(4);
  /** v0..v3 as low, high word. */
  readonly #v = new Int32Array(8);

  constructor(key: Uint8Array) {
    assert(key.length === 16, 'a SipHash key has 16 bytes');
    for (let i = 0; i < 4; i++) this.#key[i] = word(key, 4 * i);
  }

  /** The low 32 bits of the hash of `bytes[0 .. len)`. */
  hash32(bytes: Uint8Array, len: number): number {
    const v = this.#v;
    const [k0 = 0, k1 = 0, k2 = 0, k3 = 0] = this.#key;
    v[0] = k0 ^ 0x70736575;
    v[1] = k1 ^ 0x736f6d65;
    v[2] = k2 ^ 0x6e646f6d;
    v[3] = k3 ^ 0x646f7261;
    v[4] = k0 ^ 0x6e657261;
    v[5] = k1 ^ 0x6c796765;
    v[6] = k2 ^ 0x79746573;
    v[7] = k3 ^ 0x74656462;
    let off = 0;
    for (; off + 8 <= len; off += 8) this.#absorb(word(bytes, off), word(bytes, off + 4));
    let low = 0;
    let high = (len & 0xff) << 24;
    for (let i = 0; off + i < len; i++) {
      if (i < 4) low |= bytes[off + i]! << (8 * i);
      else high |= bytes[off + i]! << (8 * (i - 4));
    }
    this.#absorb(low, high);
    v[4] = v[4]! ^ 0xff;
    for (let i = 0; i < 4; i++) round(v);
    return v[0]! ^ v[2]! ^ v[4]! ^ v[6]!;
  }

  #absorb(low: number, high: number): void {
    const v = this.#v;
    v[6] = v[6]! ^ low;
    v[7] = v[7]! ^ high;
    round(v);
    round(v);
    v[0] = v[0]! ^ low;
    v[1] = v[1]! ^ high;
  }
}

function word(buf: Uint8Array, off: number): number {
  return buf[off]! | (buf[off + 1]! << 8) | (buf[off + 2]! << 16) | (buf[off + 3]! << 24);
}

/** v[a] += v[b], 64 bits. */
function add(v: Int32Array, a: number, b: number): void {
  const low = (v[a]! >>> 0) + (v[b]! >>> 0);
  v[a] = low;
  v[a + 1] = v[a + 1]! + v[b + 1]! + (low > 0xffffffff ? 1 : 0);
}

/** v[a] = rotl(v[a], bits) ^ v[b], 64 bits, 0 < bits < 32. */
function rotateXor(v: Int32Array, a: number, bits: number, b: number): void {
  const low = v[a]!;
  const high = v[a + 1]!;
  v[a] = ((low << bits) | (high >>> (32 - bits))) ^ v[b]!;
  v[a + 1] = ((high << bits) | (low >>> (32 - bits))) ^ v[b + 1]!;
}

/** v[a] = rotl(v[a], 32): the halves change places. */
function swap(v: Int32Array, a: number): void {
  const low = v[a]!;
  v[a] = v[a + 1]!;
  v[a + 1] = low;
}

function round(v: Int32Array): void {
  add(v, 0, 2);
  rotateXor(v, 2, 13, 0);
  swap(v, 0);
  add(v, 4, 6);
  rotateXor(v, 6, 16, 4);
  add(v, 0, 6);
  rotateXor(v, 6, 21, 0);
  add(v, 4, 2);
  rotateXor(v, 2, 17, 4);
  swap(v, 4);
}

/** Makes initial sequence numbers for one stack. */
export class InitialSequence {
  readonly #hash: SipHash;
  /** local address 16, remote address 16, local port 2, remote port 2 */
  readonly #tuple = new Uint8Array(36);

  constructor(rng: Rng) {
    this.#hash = new SipHash(rng.fill(new Uint8Array(16)));
  }

  /** ISN = M + F(localip, localport, remoteip, remoteport, secretkey), RFC 6528 section 3. Addresses are 16 bytes at an offset. */
  next(
    now: number,
    local: Uint8Array,
    localOff: number,
    localPort: number,
    remote: Uint8Array,
    remoteOff: number,
    remotePort: number,
  ): number {
    const tuple = this.#tuple;
    for (let i = 0; i < 16; i++) {
      tuple[i] = local[localOff + i]!;
      tuple[16 + i] = remote[remoteOff + i]!;
    }
    tuple[32] = localPort >>> 8;
    tuple[33] = localPort;
    tuple[34] = remotePort >>> 8;
    tuple[35] = remotePort;
    return (Math.floor(now * 250) + this.#hash.hash32(tuple, 36)) | 0;
  }
}
