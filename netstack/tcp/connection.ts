/**
 * One TCP connection (RFC 9293), from the stack's side: the guest is the peer, and the bytes go to and come from a socket
 * of the host.
 *
 * It is a machine without I/O: segments go in by {@link TcpConnection.receive}, come out by {@link TcpConnection.poll},
 * and {@link TcpConnection.pollAt} says when it next has something to do. It knows ports but no addresses: the stack finds the
 * connection for a segment, writes IP headers and checksums. Nothing is called back except the sink and the taker that are
 * passed in; what has changed is read from the getters after receive() and poll().
 *
 * How the stack drives it:
 * - A guest's SYN makes a connection that stays silent ({@link TcpConnection.listen}) until the host's connect is known: then
 *   {@link TcpConnection.accept}, {@link TcpConnection.refuse} or {@link TcpConnection.discard}.
 * - For a published port, {@link TcpConnection.connect} opens towards the guest.
 * - Each batch of frames: receive() for every segment, then for each touched connection move bytes (readable/consumed,
 *   writable/produced) and poll() once. One poll per batch gives one ACK per batch.
 */
import type { TcpSegment } from '../wire/tcp.ts';
import type { TcpContext } from './context.ts';

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

/** The machine. Its public surface is settled; the body follows. */
export declare class TcpConnection {
  readonly localPort: number;
  readonly remotePort: number;

  /** @param isn initial sequence number, from {@link InitialSequence} */
  constructor(context: TcpContext, path: TcpPath, localPort: number, remotePort: number, isn: number);

  get state(): TcpState;
  /** Why the connection failed; undefined while it lives and after an orderly end. */
  get failure(): TcpFailure | undefined;
  /** The handshake is done and the connection not closed. */
  get isOpen(): boolean;
  /** Nothing is left: no segment to send, no timer, no buffer. The stack forgets the connection. */
  get isDead(): boolean;

  /** Passive open: takes a guest's SYN and says nothing yet. Returns false if `seg` is no acceptable SYN. */
  listen(now: number, seg: TcpSegment): boolean;
  /** The host's side is connected: SYN-ACK goes out with the next poll. */
  accept(now: number): void;
  /** The host's side refused: RST goes out with the next poll. Only in `pending`. */
  refuse(): void;
  /** Forgets everything without a word to the peer (the stack answers by ICMP, or the guest is gone). */
  discard(): void;
  /** Active open: SYN goes out with the next poll. */
  connect(now: number): void;

  /** Processes one segment (already checksummed) that belongs to this connection. `taker` as for the zero-copy path. */
  receive(now: number, seg: TcpSegment, taker?: ByteTaker): void;

  /** Received bytes in order, the longest contiguous part; len 0: none. */
  readable(): Region;
  /** The host took `count` of them. */
  consumed(count: number): void;
  /** The peer's FIN has come and every byte before it was consumed: shut the host's socket for writing. */
  get endOfStream(): boolean;

  /** Room for bytes to send, the longest contiguous part; len 0: none now (full, finished or not open). */
  writable(): Region;
  /** `count` bytes were written there; 0 gives an unused buffer back. */
  produced(count: number): void;
  /** There is room worth a read from the host's socket (a good part of the buffer, not a few bytes). */
  get hasRoom(): boolean;
  /** No more bytes: FIN after those in the buffer. */
  finish(): void;
  /** Ends at once: RST goes out with the next poll. */
  abort(): void;

  /** The path got narrower (ICMP) or wider. What was lost for its size is cut anew and sent again. */
  setPath(now: number, path: TcpPath): void;
  /** Sends what there is to send. */
  poll(now: number, sink: SegmentSink): void;
  /** When poll() has something to do: a time in the past for at once, Infinity for never. */
  pollAt(): number;
}
