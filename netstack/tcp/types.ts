/** The words in which a connection and its stack speak to each other. */
import type { TcpSegment } from '../wire/tcp.ts';

/**
 * States of RFC 9293 section 3.3.2. `pending` is ours: a SYN has come and is not yet answered, because nobody knows
 * yet whether the host's side can be reached. LISTEN does not exist: the stack makes a connection per SYN.
 */
export type TcpState =
  | 'closed'
  | 'pending'
  | 'syn-sent'
  | 'syn-received'
  | 'established'
  | 'fin-wait-1'
  | 'fin-wait-2'
  | 'close-wait'
  | 'closing'
  | 'last-ack'
  | 'time-wait';

/**
 * Why a connection is closed, if not by both sides' FIN: `reset` by the peer's RST, `refused` by a RST to our SYN,
 * `timed-out` when the peer was silent too long, `aborted` by our own side.
 */
export type TcpFailure = 'reset' | 'refused' | 'timed-out' | 'aborted';

/** What the link carries. Bytes count the TCP header and payload, not the IP header. */
export interface TcpPath {
  /** Largest segment in one packet: MTU less IP header. */
  segmentBytesMax: number;
  /** Largest super-segment that the link cuts for us (65535 less IP header), or 0. */
  superSegmentBytesMax: number;
}

/** Takes what a connection sends. */
export interface SegmentSink {
  /**
   * Sends one segment: header fields, options, `payload[payloadOff .. payloadEnd)`, to be cut every `gsoBytes` of payload if that is
   * not 0. Record and payload are only valid during the call. Returns false when the link took nothing:
   * the connection then stops and tries again a moment later.
   */
  segment(seg: TcpSegment): boolean;
}

/** Takes received bytes right out of the frame, before they would be copied into the receive buffer. */
export interface ByteTaker {
  /** Takes up to `len` bytes and returns how many. They are only valid during the call. */
  take(buf: Uint8Array, off: number, len: number): number;
}

/** A contiguous part of a ring. The record is reused: it is valid until the next call on any connection. */
export interface Region {
  buf: Uint8Array;
  off: number;
  len: number;
}
