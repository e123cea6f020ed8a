/**
 * Every bound of the TCP machine, with what happens at it. What a deployment may want to change is in {@link TcpConfig}
 * (config.ts); what is here protects the stack and does not change.
 */

/** Smallest segment we cut for a peer, whatever its MSS option or an ICMP says: a tiny MSS would multiply packets. */
export const MSS_BYTES_MIN = 216;
/** RFC 9293 MUST-15: the MSS of a peer that sends no MSS option, IPv4. (IPv6's 1220 is not below it in practice.) */
export const MSS_BYTES_DEFAULT = 536;
/** Out-of-order ranges kept per connection. A segment that would make one more is dropped and counted. */
export const REASSEMBLY_RANGES_MAX = 128;
/** Segments in flight that are tracked per connection. At the limit no new one is sent until some are acknowledged. */
export const SENT_SEGMENTS_MAX = 4096;
/** Duplicate ACKs answered one by one to a peer without SACK, per batch; more would tell it nothing new. */
export const DUPLICATE_ACKS_MAX = 8;
/** Smallest and largest block of the buffer pool. */
export const BLOCK_BYTES_MIN: number = 4 * 1024;
export const BLOCK_BYTES_MAX: number = 16 * 1024 * 1024;
/** RFC 5961 section 10: challenge ACKs of a whole stack per second, so that they cannot be used for a flood. */
export const CHALLENGE_ACKS_PER_SECOND = 1000;
/** Challenge ACKs of one connection per second: enough for any honest peer. */
export const CHALLENGE_ACKS_PER_CONNECTION = 10;

/** Time-outs in a row, without an ACK between them, after which a path on which large segments vanish is taken for a black hole. */
export const BLACK_HOLE_TIMEOUTS = 3;
/** Largest payload on such a path: every IPv6 link carries it (RFC 8200 section 5), whatever options are in the header. */
export const BLACK_HOLE_SEGMENT_BYTES = 1200;
/** When larger ones are tried again (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER). */
export const BLACK_HOLE_RAISE_MS = 600_000;
