/**
 * How large the segments of a connection may be: what the path and the peer take, and what an option in every segment leaves. A
 * path on which large segments vanish while nobody says why is taken for a narrower one for a while (RFC 8899 section 5.1.1).
 */
import { TCP_HEADER_LEN } from '../wire/tcp.ts';
import type { Handshake } from './handshake.ts';
import { BLACK_HOLE_RAISE_MS, BLACK_HOLE_SEGMENT_BYTES, MSS_BYTES_MIN } from './limits.ts';
import type { PeerStamps } from './peer-stamps.ts';
import type { Sender } from './sender.ts';
import type { TcpPath } from './types.ts';

/** Bytes of the timestamps option in every segment. */
const STAMPS_LEN = 12;

/** The parts of a connection that have a say in it, or must hear of it. */
export interface PathSizeParts {
  handshake: Handshake;
  stamps: PeerStamps;
  tx: Sender;
}

export class PathSize {
  readonly #handshake: Handshake;
  readonly #stamps: PeerStamps;
  readonly #tx: Sender;
  #path: TcpPath;
  /** The path before it was taken for a black hole, and when to try it again. */
  #widePath: TcpPath | undefined;
  #widenAtMs: number = Number.POSITIVE_INFINITY;

  constructor(path: TcpPath, { handshake, stamps, tx }: PathSizeParts) {
    this.#path = path;
    this.#handshake = handshake;
    this.#stamps = stamps;
    this.#tx = tx;
  }

  /** The largest TCP segment, header included, that the path takes as far as is known. */
  get segmentBytesMax(): number {
    return this.#path.segmentBytesMax;
  }

  /** RFC 6691: what we say in our MSS option counts neither IP nor TCP options. */
  get ownMss(): number {
    return Math.min(this.#path.segmentBytesMax - TCP_HEADER_LEN, 0xffff);
  }

  /** Bytes that fit in a segment of the peer's that says no more than it must. */
  get receiveBytes(): number {
    return this.ownMss - (this.#stamps.inUse ? STAMPS_LEN : 0);
  }

  /** The path is this from now on. @param fresh nothing was sent yet */
  use(path: TcpPath, fresh: boolean): void {
    this.#widePath = undefined;
    this.#widenAtMs = Number.POSITIVE_INFINITY;
    this.#path = path;
    this.apply(fresh);
  }

  /** Tells the sending half; also when the peer has said what it takes. */
  apply(fresh: boolean): void {
    const options = this.#stamps.inUse ? STAMPS_LEN : 0;
    const mss = Math.min(this.#handshake.peerMss, this.#path.segmentBytesMax - TCP_HEADER_LEN) - options;
    const superBytes = Math.max(this.#path.superSegmentBytesMax - TCP_HEADER_LEN - options, 0);
    this.#tx.setSegmentSize(Math.max(mss, MSS_BYTES_MIN), superBytes, fresh);
  }

  /** Large segments vanish on the way: smaller ones, for a while. */
  narrow(now: number): void {
    const path = this.#path;
    this.use({ ...path, segmentBytesMax: BLACK_HOLE_SEGMENT_BYTES + TCP_HEADER_LEN }, false);
    this.#widePath = path;
    this.#widenAtMs = now + BLACK_HOLE_RAISE_MS;
  }

  /** Tries the wider path again when it is time. */
  poll(now: number): void {
    if (now >= this.#widenAtMs) this.use(this.#widePath ?? this.#path, false);
  }
}
