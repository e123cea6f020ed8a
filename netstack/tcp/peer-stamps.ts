/** The peer's timestamps (RFC 7323): what to echo, and which segments are too old to be true (PAWS). */
import type { TcpSegment } from '../wire/tcp.ts';
import { seqDiff, seqLe } from './sequence.ts';

/** RFC 7323 section 5.5: a timestamp this old says nothing any more (24 days). */
const STAMP_MS_MAX: number = 24 * 24 * 3600 * 1000;

export class PeerStamps {
  /** Both sides do timestamps. */
  inUse = false;
  /** TS.Recent: what our segments echo. */
  recent = 0;
  #recentMs: number = Number.NaN;
  /** Last.ACK.sent (section 4.3). */
  #lastAckSent = 0;

  /** The peer's SYN. */
  start(now: number, seg: TcpSegment, inUse: boolean): void {
    this.inUse = inUse;
    this.#lastAckSent = (seg.sequence + 1) | 0;
    if (inUse) this.#take(now, seg);
  }

  /** PAWS, section 5.3 R1: the segment's timestamp is not older than the latest. */
  acceptable(now: number, seg: TcpSegment): boolean {
    return seqDiff(seg.timestamp, this.recent) >= 0 || now - this.#recentMs > STAMP_MS_MAX;
  }

  /** Section 4.3 (2): of segments that are acknowledged together the earliest is echoed. */
  update(now: number, seg: TcpSegment): void {
    if (this.inUse && seqLe(seg.sequence, this.#lastAckSent)) this.#take(now, seg);
  }

  #take(now: number, seg: TcpSegment): void {
    this.recent = seg.timestamp;
    this.#recentMs = now;
  }

  /** An acknowledgment has gone out. */
  acknowledged(ack: number): void {
    this.#lastAckSent = ack;
  }
}
