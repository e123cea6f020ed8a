/**
 * What may be set about TCP. Defaults suit a stack between containers or VMs and the sockets of the host they run on: the
 * round trip is microseconds, memory is shared by thousands of connections, and the peer's patience is the kernel's.
 */

export interface TcpConfig {
  /** Receive window at the start; it grows to the maximum while the host takes bytes quickly. No memory is held for an empty buffer. */
  receiveBytesInitial: number;
  receiveBytesMax: number;
  /** Send buffer at the start; it grows to the maximum while it limits the throughput. */
  sendBytesInitial: number;
  sendBytesMax: number;
  /** Offer and accept timestamps (RFC 7323), selective acknowledgments (RFC 2018) and window scaling (RFC 7323). */
  timestamps: boolean;
  sack: boolean;
  windowScaling: boolean;
  /** Explicit congestion notification (RFC 3168): never, for peers that ask for it, or asked for by our own SYNs too. */
  ecn: 'off' | 'accept' | 'request';
  /** RFC 9293 SHLD-7, Nagle's algorithm. Off: the bytes come from an application that has decided already. */
  nagle: boolean;
  /** Longest delay of an ACK (RFC 5681 section 4.2: at most 500). */
  delayedAckMs: number;
  /** Bounds of the retransmission time-out (RFC 6298); the lower one is added to the round trip. 200 ms, as in Linux, for the RFC's second. */
  rtoMsMin: number;
  rtoMsMax: number;
  /** Time-out before the first measurement (RFC 6298 rule 2.1). */
  rtoMsInitial: number;
  /** A handshake without an answer for this long fails (R2 of RFC 9293 section 3.8.3 for SYNs). */
  handshakeMsMax: number;
  /** Unacknowledged bytes fail the connection after this long (RFC 5482). A paused guest survives less than it. */
  userTimeoutMs: number;
  /** Silence after which keep-alive probes are sent, 0 for never (RFC 9293 section 3.8.4). */
  keepAliveMs: number;
  keepAliveIntervalMs: number;
  keepAliveProbes: number;
  /** How long TIME-WAIT lasts. Short: both ends of the wire are in one machine, and nothing wanders in it for minutes. */
  timeWaitMs: number;
  /** Payload of an in-order segment is offered to the taker before it is copied if it has at least this many bytes. */
  directBytesMin: number;
}

export const tcpDefaults: TcpConfig = {
  receiveBytesInitial: 256 * 1024,
  receiveBytesMax: 4 * 1024 * 1024,
  sendBytesInitial: 64 * 1024,
  // Guests are near: more would not be in a cache when it is read.
  sendBytesMax: 2 * 1024 * 1024,
  timestamps: true,
  sack: true,
  windowScaling: true,
  ecn: 'accept',
  nagle: false,
  delayedAckMs: 40,
  rtoMsMin: 200,
  rtoMsMax: 60_000,
  rtoMsInitial: 1000,
  handshakeMsMax: 60_000,
  userTimeoutMs: 900_000,
  keepAliveMs: 7_200_000,
  keepAliveIntervalMs: 75_000,
  keepAliveProbes: 9,
  timeWaitMs: 1000,
  directBytesMin: 8 * 1024,
};
