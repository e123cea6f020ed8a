/**
 * What has been sent and not yet acknowledged, segment by segment, and which of it is lost: SACK's scoreboard (RFC 2018,
 * RFC 6675) with RACK's time-based detection (RFC 8985 section 6). A segment is lost when one that was sent later has been
 * delivered, and enough time has passed for mere reordering.
 *
 * Records form a list in order of sequence, taken from a free list shared by all connections, so that sending allocates
 * nothing. A super-segment is one record until a SACK or a loss cuts it. Cuts are at multiples of the MSS only, so that a hostile
 * peer cannot make a record per byte.
 */
import { SENT_SEGMENTS_MAX } from './limits.ts';
import { seqDiff, seqLe, seqLt } from './sequence.ts';

/** A range of sequence numbers that was sent together. */
export class SentSegment {
  start = 0;
  end = 0;
  /** When it was last sent. */
  sentAtMs: number = Number.NaN;
  retransmitted = false;
  sacked = false;
  /** Believed lost and not sent again since. */
  lost = false;
  next: SentSegment | undefined = undefined;
  previous: SentSegment | undefined = undefined;
}

/** Free records, linked by `next`, and how many are kept at most. */
let freeList: SentSegment | undefined;
let freeCount = 0;
const FREE_RECORDS_MAX = 16_384;

function takeRecord(): SentSegment {
  const record = freeList;
  if (!record) return new SentSegment();
  freeList = record.next;
  freeCount--;
  record.next = undefined;
  record.retransmitted = false;
  record.sacked = false;
  record.lost = false;
  return record;
}

function freeRecord(record: SentSegment): void {
  record.previous = undefined;
  record.next = undefined;
  if (freeCount >= FREE_RECORDS_MAX) return;
  record.next = freeList;
  freeList = record;
  freeCount++;
}

/** RFC 6675 and RFC 8985: so many segments SACKed above a hole are a loss, without waiting. */
const DUPLICATE_THRESHOLD = 3;
/** Timers are no finer than this, and guests are scheduled no finer. */
const REORDER_WINDOW_MS_MIN = 1;
/** RFC 8985 section 6.2 step 4: how long a widened reordering window lasts, in recoveries. */
const REORDER_PERSIST_RECOVERIES = 16;

export class Scoreboard {
  #head: SentSegment | undefined;
  #tail: SentSegment | undefined;
  #count = 0;
  /** Nothing before this record is lost; undefined when nothing is. */
  #lostFrom: SentSegment | undefined;
  #sackedBytes = 0;
  #lostBytes = 0;

  // RACK: the most recently sent segment that was delivered.
  #rackSentAtMs: number = Number.NEGATIVE_INFINITY;
  #rackEnd = 0;
  #rackRttMs: number = Number.NaN;
  /** Highest sequence number delivered: a never retransmitted segment below it is reordering. */
  #highestDelivered = 0;
  /** The same before the current ACK, whose blocks come in any order. */
  #deliveredBefore = 0;
  #reorderingSeen = false;
  #reorderMultiplier = 1;
  #reorderPersist = 0;

  #minRttMs = 0;
  #echoMs: number | undefined;

  // Results of the current ACK.
  deliveredBytes = 0;
  /** Round-trip time measured by the current ACK, NaN when nothing can be told. */
  rttMs: number = Number.NaN;
  /** The current ACK delivered something that had been sent more than once. */
  deliveredRetransmit = false;
  /** The current ACK told of a segment that arrived twice. */
  duplicateSeen = false;

  /** Nothing sent yet: the first sequence number of data. */
  start(sequence: number): void {
    this.#highestDelivered = sequence;
    this.#rackEnd = sequence;
  }

  get isEmpty(): boolean {
    return this.#head === undefined;
  }

  get isFull(): boolean {
    return this.#count >= SENT_SEGMENTS_MAX;
  }

  get sackedBytes(): number {
    return this.#sackedBytes;
  }

  /** Bytes that are to be sent again. */
  get lostBytes(): number {
    return this.#lostBytes;
  }

  get head(): SentSegment | undefined {
    return this.#head;
  }

  get tail(): SentSegment | undefined {
    return this.#tail;
  }

  /** Records [start, end) as sent now, after everything else. */
  push(start: number, end: number, now: number): void {
    const record = takeRecord();
    record.start = start;
    record.end = end;
    record.sentAtMs = now;
    record.previous = this.#tail;
    if (this.#tail) this.#tail.next = record;
    else this.#head = record;
    this.#tail = record;
    this.#count++;
  }

  /** Cuts a record in two at `at`, inside it. */
  split(record: SentSegment, at: number): void {
    const rest = takeRecord();
    rest.start = at;
    rest.end = record.end;
    rest.sentAtMs = record.sentAtMs;
    rest.retransmitted = record.retransmitted;
    rest.sacked = record.sacked;
    rest.lost = record.lost;
    record.end = at;
    rest.previous = record;
    rest.next = record.next;
    if (record.next) record.next.previous = rest;
    else this.#tail = rest;
    record.next = rest;
    this.#count++;
  }

  /**
   * Begins the processing of an ACK: clears its results. `echoMs` is the time of ours that the ACK's timestamp echoes, as a
   * signed 32-bit integer, or undefined.
   */
  begin(minRttMs: number, echoMs: number | undefined): void {
    this.#minRttMs = minRttMs === Number.POSITIVE_INFINITY ? 0 : minRttMs;
    this.#echoMs = echoMs;
    this.#deliveredBefore = this.#highestDelivered;
    this.deliveredBytes = 0;
    this.rttMs = Number.NaN;
    this.deliveredRetransmit = false;
    this.duplicateSeen = false;
  }

  /** Everything before `ack` has arrived. */
  acknowledge(now: number, ack: number): void {
    let record = this.#head;
    while (record && seqLt(record.start, ack)) {
      if (seqLt(ack, record.end)) {
        this.#cutHead(now, record, ack);
        return;
      }
      const next: SentSegment | undefined = record.next;
      if (record.sacked) this.#sackedBytes -= seqDiff(record.end, record.start);
      else this.#delivered(now, record);
      if (record.lost) this.#clearLost(record);
      this.#unlinkHead(record);
      record = next;
    }
  }

  /** The peer acknowledged a part of the first record. */
  #cutHead(now: number, record: SentSegment, ack: number): void {
    const bytes = seqDiff(ack, record.start);
    if (record.sacked) this.#sackedBytes -= bytes;
    else {
      const end = record.end;
      record.end = ack;
      this.#delivered(now, record);
      record.end = end;
    }
    if (record.lost) this.#lostBytes -= bytes;
    record.start = ack;
  }

  #unlinkHead(record: SentSegment): void {
    this.#head = record.next;
    if (record.next) record.next.previous = undefined;
    else this.#tail = undefined;
    this.#count--;
    if (this.#lostFrom === record) this.#lostFrom = this.#head;
    freeRecord(record);
  }

  #clearLost(record: SentSegment): void {
    record.lost = false;
    this.#lostBytes -= seqDiff(record.end, record.start);
  }

  /** Marks [start, end) as SACKed; a segment of which only a part arrived counts as not arrived. */
  sack(now: number, start: number, end: number, mss: number): void {
    let record = this.#head;
    while (record && seqLe(record.end, start)) record = record.next;
    for (; record && seqLt(record.start, end); record = record.next) {
      if (record.sacked) continue;
      if (seqLt(record.start, start)) {
        const skip = Math.ceil(seqDiff(start, record.start) / mss) * mss;
        // The second part, if there is one, is next.
        if (skip < seqDiff(record.end, record.start)) this.split(record, (record.start + skip) | 0);
        continue;
      }
      if (seqLt(end, record.end)) {
        const keep = Math.floor(seqDiff(end, record.start) / mss) * mss;
        if (keep === 0) continue;
        this.split(record, (record.start + keep) | 0);
      }
      this.#delivered(now, record);
      if (record.lost) this.#clearLost(record);
      record.sacked = true;
      this.#sackedBytes += seqDiff(record.end, record.start);
    }
  }

  /** Accounts for a record that is newly known to have arrived (RFC 8985 section 6.2 steps 1 to 3). */
  #delivered(now: number, record: SentSegment): void {
    this.deliveredBytes += seqDiff(record.end, record.start);
    if (record.retransmitted) {
      this.deliveredRetransmit = true;
      // Step 2: an ACK that echoes an older timestamp, or comes sooner than any round trip, is for an earlier transmission.
      if (this.#echoMs !== undefined && seqLt(this.#echoMs, Math.floor(record.sentAtMs) | 0)) return;
      if (now - record.sentAtMs < this.#minRttMs) return;
    } else if (seqLt(record.end, this.#deliveredBefore)) this.#reorderingSeen = true;
    if (seqLt(this.#highestDelivered, record.end)) this.#highestDelivered = record.end;
    if (
      record.sentAtMs > this.#rackSentAtMs ||
      (record.sentAtMs === this.#rackSentAtMs && seqLt(this.#rackEnd, record.end))
    ) {
      this.#rackSentAtMs = record.sentAtMs;
      this.#rackEnd = record.end;
      this.#rackRttMs = now - record.sentAtMs;
      if (!record.retransmitted) this.rttMs = now - record.sentAtMs;
    }
  }

  /** A duplicate arrived at the peer (D-SACK, RFC 2883): what looked like loss was reordering. RFC 8985 step 4. */
  duplicateReported(): void {
    this.duplicateSeen = true;
    this.#reorderMultiplier = Math.min(this.#reorderMultiplier + 1, 20);
    this.#reorderPersist = REORDER_PERSIST_RECOVERIES;
  }

  /** A recovery has ended without a time-out. */
  recoveryEnded(): void {
    if (this.#reorderPersist > 0 && --this.#reorderPersist === 0) this.#reorderMultiplier = 1;
  }

  /**
   * Marks what must be lost by now (RFC 8985 section 6.2 step 5). Returns how long to wait before another look at segments
   * that may just be late, or Infinity.
   */
  detect(now: number, mss: number, srttMs: number, recovering: boolean): number {
    if (Number.isNaN(this.#rackRttMs) || !this.#head) return Number.POSITIVE_INFINITY;
    return this.#detectFrom(now, this.#window(mss, srttMs, recovering));
  }

  /** RFC 8985 section 6.2 step 4: the reordering window. */
  #window(mss: number, srttMs: number, recovering: boolean): number {
    if (!this.#reorderingSeen && (recovering || this.#sackedBytes >= DUPLICATE_THRESHOLD * mss)) return 0;
    const wide = (this.#reorderMultiplier * this.#minRttMs) / 4;
    return Math.max(Math.min(wide, srttMs), REORDER_WINDOW_MS_MIN);
  }

  #detectFrom(now: number, windowMs: number): number {
    let waitMs = Number.POSITIVE_INFINITY;
    for (let record = this.#head; record; record = record.next) {
      if (record.sacked || record.lost) continue;
      const later = record.sentAtMs - this.#rackSentAtMs;
      if (later > 0 || (later === 0 && !seqLt(record.end, this.#rackEnd))) {
        // Sent after the delivered one. Records that were never retransmitted come in order of time.
        if (!record.retransmitted) break;
        continue;
      }
      const leftMs = record.sentAtMs + this.#rackRttMs + windowMs - now;
      if (leftMs <= 0) this.markLost(record);
      else waitMs = waitMs === Number.POSITIVE_INFINITY ? leftMs : Math.max(waitMs, leftMs);
    }
    return waitMs;
  }

  markLost(record: SentSegment): void {
    if (record.lost || record.sacked) return;
    record.lost = true;
    this.#lostBytes += seqDiff(record.end, record.start);
    if (!this.#lostFrom || seqLt(record.start, this.#lostFrom.start)) this.#lostFrom = record;
  }

  /** Everything that is not SACKed is lost: a time-out, or a path that became too narrow. */
  markAllLost(): void {
    for (let record = this.#head; record; record = record.next) this.markLost(record);
  }

  /** Nothing was lost after all. */
  unmarkLost(): void {
    for (let record = this.#head; record; record = record.next) record.lost = false;
    this.#lostBytes = 0;
    this.#lostFrom = undefined;
  }

  /** Forgets what was SACKed: the peer has thrown it away again (RFC 2018 section 8). */
  forgetSacks(): void {
    for (let record = this.#head; record; record = record.next) record.sacked = false;
    this.#sackedBytes = 0;
  }

  /** The first record to send again, or undefined. */
  firstLost(): SentSegment | undefined {
    if (this.#lostBytes === 0) return undefined;
    let record = this.#lostFrom ?? this.#head;
    while (record && !record.lost) record = record.next;
    this.#lostFrom = record;
    return record;
  }

  /** `record` was sent again now. */
  resent(record: SentSegment, now: number): void {
    if (record.lost) this.#clearLost(record);
    record.retransmitted = true;
    record.sentAtMs = now;
  }

  /** Forgets everything. */
  clear(): void {
    while (this.#head) this.#unlinkHead(this.#head);
    this.#lostFrom = undefined;
    this.#sackedBytes = 0;
    this.#lostBytes = 0;
  }
}
