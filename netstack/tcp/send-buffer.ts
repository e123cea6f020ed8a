/**
 * Bytes from the host until the peer has acknowledged them: a ring into which the host's socket is read directly, and from
 * which segments are cut. Its size grows while it is what limits the throughput, shrinks when little of it is used, and it
 * holds no memory while it is empty.
 *
 * A payload is always one piece of memory: a super-segment ends before the ring's wrap, a large segment ends there, and a small one
 * that lies across it is copied together.
 */
import type { TcpContext } from './context.ts';
import { Ring } from './ring.ts';
import { seqDiff, seqLe } from './sequence.ts';
import type { Region } from './types.ts';

/** Sends one segment with the current acknowledgment; false: the link took nothing. */
export interface SegmentEmitter {
  emit(seq: number, flags: number, buf: Uint8Array, off: number, len: number, gsoBytes: number): boolean;
}

/** A segment that is cut off at the wrap costs less than a copy from this size on, where a ring holds many of them. */
const CUT_BYTES_MIN = 8 * 1024;
const CUT_SEGMENTS_MIN = 16;
const NO_BYTES: Uint8Array = new Uint8Array(0);
/** Where a segment across the wrap is put together; its size is that of the largest IP packet. */
const scratch: Uint8Array = new Uint8Array(0x10000);

export class SendBuffer {
  readonly #context: TcpContext;
  readonly #ring: Ring;
  /** After the last byte from the host. A FIN has this number. */
  end: number;
  /** No more bytes will come. */
  finished = false;
  #capacity: number;
  /** Most bytes held since it was last empty. */
  #peak = 0;

  constructor(context: TcpContext, start: number) {
    this.#context = context;
    this.#ring = new Ring(context.pool);
    this.#capacity = context.config.sendBytesInitial;
    this.end = start;
  }

  /** Free part of the ring, whose first byte is `una`. `usable` is what the windows would let out at once. */
  writable(region: Region, una: number, usable: number): Region {
    region.len = 0;
    region.buf = NO_BYTES;
    if (this.finished) return region;
    const used = seqDiff(this.end, una);
    if (used >= this.#capacity && this.#mayGrow(used, usable))
      this.#capacity = Math.min(this.#capacity * 2, this.#context.config.sendBytesMax);
    if (used >= this.#capacity || !this.#ring.reserve(this.#capacity, una, used)) return region;
    region.buf = this.#ring.block;
    region.off = this.#ring.at(this.end);
    region.len = this.#ring.contiguous(this.end, this.#ring.capacity - used);
    return region;
  }

  #mayGrow(used: number, usable: number): boolean {
    const { config, pool } = this.#context;
    return this.#capacity < config.sendBytesMax && usable * 2 > used && !pool.scarce;
  }

  /** A good part of the ring is free, or it would grow. */
  hasRoom(una: number, usable: number): boolean {
    if (this.finished) return false;
    const used = seqDiff(this.end, una);
    return used <= this.#capacity - (this.#capacity >> 2) || this.#mayGrow(used, usable);
  }

  /** `count` bytes were written to the region. */
  produced(count: number, una: number): void {
    this.end = (this.end + count) | 0;
    this.#peak = Math.max(this.#peak, seqDiff(this.end, una));
    this.acknowledged(una);
  }

  /** Everything before `una` may go. */
  acknowledged(una: number): void {
    if (!seqLe(this.end, una)) return;
    this.#ring.release();
    if (4 * this.#peak < this.#capacity)
      this.#capacity = Math.max(this.#capacity >> 1, this.#context.config.sendBytesInitial);
    this.#peak = 0;
  }

  /** How many of `len` bytes from `seq` make one piece of memory, without runts: whole segments before the wrap, or one at or across it. */
  together(seq: number, len: number, mss: number): number {
    const before = this.#ring.contiguous(seq, len);
    if (before === len) return len;
    if (before >= mss) return before - (before % mss);
    const cut = before >= CUT_BYTES_MIN && this.#ring.capacity >= CUT_SEGMENTS_MIN * mss;
    return cut ? before : Math.min(len, mss);
  }

  /** Sends `len` bytes from `seq`, as {@link together} allows; more than `mss` of them are a super-segment. */
  emit(emitter: SegmentEmitter, seq: number, flags: number, len: number, mss: number): boolean {
    if (len === 0) return emitter.emit(seq, flags, NO_BYTES, 0, 0, 0);
    const gso = len > mss ? mss : 0;
    if (this.#ring.contiguous(seq, len) === len)
      return emitter.emit(seq, flags, this.#ring.block, this.#ring.at(seq), len, gso);
    this.#ring.copyOut(seq, len, scratch);
    return emitter.emit(seq, flags, scratch, 0, len, gso);
  }

  /** Gives all memory back. */
  release(): void {
    this.#ring.release();
  }
}
