/**
 * The receiving half of a connection: puts segments in order, decides what window to offer and when to acknowledge.
 *
 * Bytes wait in a ring until the host's socket takes them; out-of-order ranges lie in the same ring at their places, and a
 * short sorted list says where they are. The window offered is the logical capacity, which grows while the
 * host takes bytes fast; memory is only held for bytes that are there. The right edge of the window never moves left.
 *
 * Acknowledgments are sent by the connection's poll, once per batch: at once for two full segments, disorder or a window that
 * has opened well, else with a delay.
 */
import type { TcpSegment } from '../wire/tcp.ts';
import { SACK_BLOCKS_MAX } from '../wire/tcp.ts';
import type { TcpContext } from './context.ts';
import { DUPLICATE_ACKS_MAX, REASSEMBLY_RANGES_MAX } from './limits.ts';
import { Ring } from './ring.ts';
import { seqDiff, seqLe, seqLt, seqMax, seqMin } from './sequence.ts';
import type { ByteTaker, Region } from './types.ts';

/** However large segments are, this many unacknowledged bytes are acknowledged at once: a peer's send buffer may hold no more. */
const ACK_BYTES_MAX: number = 16 * 1024;
/** A window's worth received in less than this is a fast transfer, whatever the round trip. */
const FAST_WINDOW_MS = 10;

export class Receiver {
  readonly #context: TcpContext;
  readonly #ring: Ring;
  /** How large the ring was when it was last in full use: a busy connection gets that at once. */
  #ringBytes = 0;
  /** Most bytes held since the ring was last empty. */
  #peak = 0;
  /** Next byte for the host. */
  #readSeq = 0;
  /** RCV.NXT: next byte from the peer. */
  #nextSeq = 0;
  /** Largest right edge ever offered: everything before it is accepted. */
  #edge = 0;
  /** Right edge as the peer knows it from the last ACK, which the scale may have rounded down. */
  #offeredEdge = 0;
  #capacity: number;
  /** Rcv.Wind.Shift. */
  #shift = 0;
  #mss = 0;

  /** Out-of-order ranges, sorted, start and end each; made when first needed. */
  #ranges: Int32Array | undefined;
  #rangeCount = 0;
  /** A sequence number in each of the most recently touched ranges, latest first. */
  readonly #recent: number[] = [];
  #duplicateStart = 0;
  #duplicateEnd = 0;

  #finSeq = 0;
  #finSeen = false;

  /** An ACK is due now. */
  ackNow = false;
  /** When a delayed ACK is due, or Infinity. */
  ackAtMs: number = Number.POSITIVE_INFINITY;
  /** Duplicate ACKs that a peer without SACK counts on. */
  duplicateAcks = 0;
  #unackedBytes = 0;

  // Growth of the window.
  #roundEnd = 0;
  #roundAtMs = 0;

  constructor(context: TcpContext) {
    this.#context = context;
    this.#ring = new Ring(context.pool);
    this.#capacity = context.config.receiveBytesInitial;
  }

  /** The peer's initial sequence number is known. `edge` is what our SYN offers. */
  start(now: number, irs: number): void {
    this.#nextSeq = (irs + 1) | 0;
    this.#readSeq = this.#nextSeq;
    this.#edge = (this.#nextSeq + Math.min(this.#capacity, 0xffff)) | 0;
    this.#offeredEdge = this.#edge;
    this.#roundEnd = this.#edge;
    this.#roundAtMs = now;
  }

  /** Options are settled: our shift, and the payload of the peer's full segments. */
  negotiated(shift: number, mss: number): void {
    this.#shift = shift;
    this.#mss = mss;
    if (shift === 0) this.#capacity = Math.min(this.#capacity, 0xffff);
  }

  /** RCV.NXT, counting the FIN. */
  get nextSeq(): number {
    return this.finReached ? (this.#nextSeq + 1) | 0 : this.#nextSeq;
  }

  /** The peer's FIN has come, and everything before it. */
  get finReached(): boolean {
    return this.#finSeen && this.#finSeq === this.#nextSeq;
  }

  get readableBytes(): number {
    return seqDiff(this.#nextSeq, this.#readSeq);
  }

  /** RFC 9293 section 3.10.7.4, first check, for a segment of `len` sequence numbers. */
  acceptable(seq: number, len: number): boolean {
    const next = this.nextSeq;
    if (len === 0) return seq === next || (seqLe(next, seq) && seqLt(seq, this.#edge));
    return seqLt(next, (seq + len) | 0) && (seq === next || seqLt(seq, this.#edge));
  }

  /** Takes the payload of an acceptable segment, and its FIN. */
  receive(now: number, seq: number, seg: TcpSegment, fin: boolean, taker: ByteTaker | undefined): void {
    let off = seg.payloadOff;
    let start = seq;
    let len = seg.payloadEnd - off;
    const before = seqDiff(this.#nextSeq, start);
    if (before > 0 && len > 0) {
      const dropped = Math.min(before, len);
      this.#duplicate(start, (start + dropped) | 0);
      start = (start + dropped) | 0;
      off += dropped;
      len -= dropped;
    }
    let finHere = fin;
    const over = seqDiff((start + len) | 0, this.#edge);
    if (over > 0) {
      this.#context.counters.outOfWindow++;
      len -= over;
      finHere = false;
      this.ackNow = true;
    }
    if (finHere && !this.#finSeen) {
      this.#finSeen = true;
      this.#finSeq = (start + len) | 0;
      this.ackNow = true;
    }
    // Nothing comes after the FIN.
    if (this.#finSeen) len = Math.min(len, seqDiff(this.#finSeq, start));
    if (len <= 0) return;
    if (start === this.#nextSeq) this.#inOrder(now, seg.payload, off, len, taker);
    else this.#outOfOrder(start, seg.payload, off, len);
  }

  #inOrder(now: number, buf: Uint8Array, off: number, len: number, taker: ByteTaker | undefined): void {
    let taken = 0;
    if (taker && this.#readSeq === this.#nextSeq && len >= this.#context.config.directBytesMin) {
      taken = taker.take(buf, off, len);
      this.#nextSeq = (this.#nextSeq + taken) | 0;
      this.#readSeq = this.#nextSeq;
    }
    const rest = len - taken;
    if (rest > 0) {
      if (!this.#store(this.#nextSeq, buf, off + taken, rest)) {
        this.#context.counters.reassemblyDropped++;
        this.ackNow = true;
        return;
      }
      this.#nextSeq = (this.#nextSeq + rest) | 0;
    }
    if (this.#rangeCount > 0) {
      this.#absorb();
      // A segment that was taken directly may have covered all that waited.
      this.#releaseIfEmpty();
    }
    this.#context.counters.bytesIn += len;
    this.#unackedBytes += len;
    if (this.#unackedBytes >= Math.min(2 * this.#mss, ACK_BYTES_MAX)) this.ackNow = true;
    else if (this.ackAtMs === Number.POSITIVE_INFINITY)
      this.ackAtMs = now + this.#context.config.delayedAckMs;
    if (taken > 0) this.#grow(now);
  }

  /** Copies bytes to their place in the ring, which grows as needed. */
  #store(seq: number, buf: Uint8Array, off: number, len: number): boolean {
    const end = seqMax((seq + len) | 0, this.#filledEnd());
    const filled = seqDiff(this.#filledEnd(), this.#readSeq);
    const needed = seqDiff(end, this.#readSeq);
    const wanted = this.#ring.capacity === 0 ? Math.max(needed, this.#ringBytes) : needed;
    if (!this.#ring.reserve(wanted, this.#readSeq, filled)) return false;
    this.#ring.write(seq, buf, off, len);
    if (needed > this.#peak) this.#peak = needed;
    return true;
  }

  /** Gives the ring back when nothing is in it. */
  #releaseIfEmpty(): void {
    if (this.#readSeq !== this.#nextSeq || this.#rangeCount > 0) return;
    // Memory follows use: up at once, down by halves.
    this.#ringBytes = Math.max(
      4 * this.#peak < this.#ringBytes ? this.#ringBytes >> 1 : this.#ringBytes,
      this.#peak,
    );
    this.#peak = 0;
    this.#ring.release();
  }

  /** End of the last byte held, in order or not. */
  #filledEnd(): number {
    return this.#rangeCount > 0 ? this.#ranges![2 * this.#rangeCount - 1]! : this.#nextSeq;
  }

  /** Ranges that the in-order bytes have reached become in order. */
  #absorb(): void {
    const ranges = this.#ranges!;
    let gone = 0;
    while (gone < this.#rangeCount && seqLe(ranges[2 * gone]!, this.#nextSeq)) {
      this.#nextSeq = seqMax(this.#nextSeq, ranges[2 * gone + 1]!);
      gone++;
    }
    // RFC 5681 section 4.2: a segment that fills a gap is acknowledged at once.
    this.ackNow = true;
    if (gone === 0) return;
    ranges.copyWithin(0, 2 * gone, 2 * this.#rangeCount);
    this.#rangeCount -= gone;
  }

  #outOfOrder(start: number, buf: Uint8Array, off: number, len: number): void {
    // RFC 5681 section 4.2: an immediate duplicate ACK. A peer without SACK counts them.
    this.ackNow = true;
    this.duplicateAcks = Math.min(this.duplicateAcks + 1, DUPLICATE_ACKS_MAX);
    this.#context.counters.outOfOrder++;
    const end = (start + len) | 0;
    this.#ranges ??= new Int32Array(2 * REASSEMBLY_RANGES_MAX);
    const ranges = this.#ranges;
    // Ranges first..last-1 touch the new one.
    let first = 0;
    while (first < this.#rangeCount && seqLt(ranges[2 * first + 1]!, start)) first++;
    let last = first;
    while (last < this.#rangeCount && seqLe(ranges[2 * last]!, end)) last++;
    if (first < last && seqLe(ranges[2 * first]!, start) && seqLe(end, ranges[2 * first + 1]!)) {
      this.#duplicate(start, end);
      return;
    }
    const full = first === last && this.#rangeCount === REASSEMBLY_RANGES_MAX;
    if (full || this.#context.pool.scarce || !this.#store(start, buf, off, len)) {
      this.#context.counters.reassemblyDropped++;
      return;
    }
    this.#insert(first, last, start, end);
  }

  /** Replaces ranges first..last-1 by their union with [start, end). */
  #insert(first: number, last: number, start: number, end: number): void {
    const ranges = this.#ranges!;
    let from = start;
    let to = end;
    if (first < last) {
      from = seqMin(from, ranges[2 * first]!);
      to = seqMax(to, ranges[2 * last - 1]!);
    }
    ranges.copyWithin(2 * first + 2, 2 * last, 2 * this.#rangeCount);
    ranges[2 * first] = from;
    ranges[2 * first + 1] = to;
    this.#rangeCount += 1 - (last - first);
    const recent = this.#recent;
    for (let i = recent.length - 1; i >= 0; i--) {
      if (seqLe(from, recent[i]!) && seqLt(recent[i]!, to)) recent.splice(i, 1);
    }
    recent.unshift(start);
    if (recent.length > SACK_BLOCKS_MAX) recent.length = SACK_BLOCKS_MAX;
  }

  /** Bytes came that were here already: acknowledge at once and say which (D-SACK, RFC 2883). */
  #duplicate(start: number, end: number): void {
    this.#context.counters.duplicateBytes += seqDiff(end, start);
    this.#duplicateStart = start;
    this.#duplicateEnd = end;
    this.ackNow = true;
  }

  /** An unacceptable segment carried bytes that were here before. */
  noteDuplicate(start: number, end: number): void {
    this.#duplicate(start, seqMin(end, this.#nextSeq));
  }

  /** Puts SACK blocks into an ACK: the duplicate first, then the most recent ranges (RFC 2018 section 4, RFC 2883 section 4). */
  fillSack(seg: TcpSegment): void {
    const max = seg.hasTimestamps ? SACK_BLOCKS_MAX - 1 : SACK_BLOCKS_MAX;
    let count = 0;
    if (this.#duplicateStart !== this.#duplicateEnd) {
      seg.sack[0] = this.#duplicateStart;
      seg.sack[1] = this.#duplicateEnd;
      count = 1;
      this.#duplicateStart = this.#duplicateEnd;
    }
    if (this.#rangeCount > 0) {
      const ranges = this.#ranges!;
      for (let r = 0; r < this.#recent.length && count < max; r++) {
        const point = this.#recent[r]!;
        for (let i = 0; i < this.#rangeCount; i++) {
          if (!seqLe(ranges[2 * i]!, point) || !seqLt(point, ranges[2 * i + 1]!)) continue;
          seg.sack[2 * count] = ranges[2 * i]!;
          seg.sack[2 * count + 1] = ranges[2 * i + 1]!;
          count++;
          break;
        }
      }
    }
    seg.sackCount = count;
  }

  /** There is something that only a SACK option can say. */
  get hasSack(): boolean {
    return this.#rangeCount > 0 || this.#duplicateStart !== this.#duplicateEnd;
  }

  /** The window field of a segment sent now; moves the right edge. A SYN's is not scaled (RFC 7323 section 2.2). */
  offer(syn: boolean): number {
    const free = (this.#readSeq + this.#capacity) | 0;
    // Silly window avoidance, RFC 9293 section 3.8.6.2.2: the edge moves in large steps.
    const step = Math.min(this.#capacity >> 1, this.#mss);
    const edge = seqDiff(free, this.#edge) >= step ? free : this.#edge;
    const shift = syn ? 0 : this.#shift;
    const field = Math.min(Math.max(seqDiff(edge, this.#nextSeq), 0) >> shift, 0xffff);
    this.#offeredEdge = (this.#nextSeq + (field << shift)) | 0;
    this.#edge = seqMax(this.#edge, this.#offeredEdge);
    return field;
  }

  /** A segment with the current acknowledgment number and window has gone out. */
  acknowledged(): void {
    this.ackNow = false;
    this.ackAtMs = Number.POSITIVE_INFINITY;
    this.#unackedBytes = 0;
    this.duplicateAcks = 0;
  }

  /** The longest contiguous run of bytes for the host. */
  readable(region: Region): Region {
    region.len = this.readableBytes;
    if (region.len > 0) {
      region.len = this.#ring.contiguous(this.#readSeq, region.len);
      region.off = this.#ring.at(this.#readSeq);
    }
    region.buf = this.#ring.block;
    return region;
  }

  /** The host took bytes; asks for an ACK when the window has opened well. */
  consumed(now: number, count: number): void {
    this.#readSeq = (this.#readSeq + count) | 0;
    this.#releaseIfEmpty();
    this.#grow(now);
    // A window update on its own is only for a peer that is about to stop: ACKs of data tell it to any other.
    const remaining = Math.max(seqDiff(this.#offeredEdge, this.#nextSeq), 0);
    if (remaining > this.#capacity >> 3) return;
    const gain = seqDiff((this.#readSeq + this.#capacity) | 0, this.#offeredEdge);
    if (gain >= Math.min(this.#capacity >> 1, Math.max(4 * this.#mss, remaining))) this.ackNow = true;
  }

  #srttMs = 0;

  /** Round-trip time as the sending half knows it. */
  setSrtt(srttMs: number): void {
    this.#srttMs = srttMs;
  }

  /** Doubles the window when the host took a whole window in about a round trip: it was the limit. */
  #grow(now: number): void {
    if (seqLt(this.#readSeq, this.#roundEnd)) return;
    const max = Math.min(this.#context.config.receiveBytesMax, 0xffff << this.#shift);
    const fast = now - this.#roundAtMs < Math.max(4 * this.#srttMs, FAST_WINDOW_MS);
    if (fast && this.#capacity < max && !this.#context.pool.scarce)
      this.#capacity = Math.min(2 * this.#capacity, max);
    this.#roundEnd = (this.#readSeq + this.#capacity) | 0;
    this.#roundAtMs = now;
  }

  /** Nothing more will come: only what is in order is kept. */
  forgetGaps(): void {
    this.#rangeCount = 0;
    this.#ranges = undefined;
    this.#releaseIfEmpty();
  }

  /** Gives all memory back. */
  release(): void {
    this.#ring.release();
    this.#readSeq = this.#nextSeq;
    this.#ranges = undefined;
    this.#rangeCount = 0;
    this.acknowledged();
  }
}
