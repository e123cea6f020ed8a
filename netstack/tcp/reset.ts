/** The answer to a segment that belongs to no connection (RFC 9293 section 3.10.7.1). */
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, type TcpSegment } from '../wire/tcp.ts';
import { seqAdd } from './sequence.ts';

/**
 * Fills `reply` with the RST that `seg` deserves, ports swapped. Returns false when there is none to send: a RST is
 * never answered.
 */
export function resetFor(seg: TcpSegment, reply: TcpSegment): boolean {
  if (seg.flags & TCP_RST) return false;
  reply.clear();
  reply.sourcePort = seg.destinationPort;
  reply.destinationPort = seg.sourcePort;
  if (seg.flags & TCP_ACK) {
    // <SEQ=SEG.ACK><CTL=RST>
    reply.sequence = seg.acknowledgment;
    reply.flags = TCP_RST;
    return true;
  }
  // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>, where SYN and FIN count.
  const len = seg.payloadEnd - seg.payloadOff + (seg.flags & TCP_SYN ? 1 : 0) + (seg.flags & TCP_FIN ? 1 : 0);
  reply.acknowledgment = seqAdd(seg.sequence, len);
  reply.flags = TCP_RST | TCP_ACK;
  return true;
}
