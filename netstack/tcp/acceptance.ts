/**
 * Which segments of a synchronized connection are believed (RFC 9293 section 3.10.7.4, with RFC 7323 and RFC 5961), and what
 * is answered to those that are not.
 */
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, type TcpSegment } from '../wire/tcp.ts';
import { ChallengeBudget, type TcpContext } from './context.ts';
import type { Handshake } from './handshake.ts';
import { CHALLENGE_ACKS_PER_CONNECTION } from './limits.ts';
import type { Liveness } from './liveness.ts';
import type { PeerStamps } from './peer-stamps.ts';
import type { Receiver } from './receiver.ts';
import type { Sender } from './sender.ts';
import { seqAdd, seqLt } from './sequence.ts';
import type { TcpState } from './types.ts';

/** The parts of a connection that judge. */
export interface AcceptanceParts {
  context: TcpContext;
  handshake: Handshake;
  stamps: PeerStamps;
  liveness: Liveness;
  rx: Receiver;
  tx: Sender;
}

export class Acceptance {
  readonly #context: TcpContext;
  readonly #handshake: Handshake;
  readonly #stamps: PeerStamps;
  readonly #liveness: Liveness;
  readonly #rx: Receiver;
  readonly #tx: Sender;
  readonly #challenges = new ChallengeBudget(CHALLENGE_ACKS_PER_CONNECTION);

  constructor({ context, handshake, stamps, liveness, rx, tx }: AcceptanceParts) {
    this.#context = context;
    this.#handshake = handshake;
    this.#stamps = stamps;
    this.#liveness = liveness;
    this.#rx = rx;
    this.#tx = tx;
  }

  /** PAWS (RFC 7323 section 5.3, R1) and segments without a timestamp (section 3.2). RSTs are exempt. */
  stamps(now: number, seg: TcpSegment): boolean {
    if (!this.#stamps.inUse || seg.flags & TCP_RST) return true;
    if (!seg.hasTimestamps) {
      this.#context.counters.pawsDropped++;
      return false;
    }
    if (this.#stamps.acceptable(now, seg)) return true;
    this.#context.counters.pawsDropped++;
    this.challenge(now);
    return false;
  }

  /** First check: sequence number. What is not acceptable is answered by an ACK, except a RST. */
  sequence(now: number, seg: TcpSegment, state: TcpState): boolean {
    const payload = seg.payloadEnd - seg.payloadOff;
    const len = payload + (seg.flags & TCP_SYN ? 1 : 0) + (seg.flags & TCP_FIN ? 1 : 0);
    if (this.#rx.acceptable(seg.sequence, len)) return true;
    if (state === 'syn-received' && seg.flags & TCP_SYN && seg.sequence === this.#handshake.irs) {
      // Our SYN-ACK was lost, or crossed the other SYN-ACK of a simultaneous open.
      if (seg.flags & TCP_ACK && seg.acknowledgment === this.#tx.nxt) return true;
      this.#handshake.dueAtMs = now;
      return false;
    }
    this.#context.counters.outOfWindow++;
    if (seg.flags & TCP_RST) return false;
    this.#liveness.heard(now);
    if (payload > 0 && seqLt(seg.sequence, this.#rx.nextSeq)) {
      // Sent again because our ACK was lost: say so at once, and say that it was in vain (RFC 2883).
      this.#rx.noteDuplicate(seg.sequence, seqAdd(seg.sequence, payload));
    } else if (seg.flags & TCP_FIN) this.#rx.ackNow = true;
    else this.challenge(now);
    return false;
  }

  /** Second check: a RST with the very next number is believed, another is asked about (RFC 5961 section 3.2). */
  reset(now: number, seg: TcpSegment): boolean {
    if (seg.sequence === this.#rx.nextSeq) return true;
    this.challenge(now);
    return false;
  }

  /** Fifth check: what is acknowledged was sent, and not long ago (RFC 5961 section 5.2). */
  acknowledgment(now: number, seg: TcpSegment): boolean {
    const { acknowledgment } = seg;
    const tx = this.#tx;
    if (!seqLt(tx.acknowledgeable, acknowledgment) && !seqLt(acknowledgment, seqAdd(tx.una, -tx.windowMax)))
      return true;
    this.challenge(now);
    return false;
  }

  /** A SYN that is clearly newer than a connection in TIME-WAIT (RFC 9293 section 3.6.1, RFC 6191). */
  renews(seg: TcpSegment): boolean {
    if ((seg.flags & (TCP_SYN | TCP_ACK | TCP_RST)) !== TCP_SYN) return false;
    const { inUse, recent } = this.#stamps;
    if (inUse && seg.hasTimestamps && seqLt(recent, seg.timestamp)) return true;
    return seqLt(this.#rx.nextSeq, seg.sequence);
  }

  /** A segment that proves nothing is answered by the plain state of things, within limits (RFC 5961 section 10). */
  challenge(now: number): void {
    const { counters, challenges } = this.#context;
    if (!this.#challenges.take(now) || !challenges.take(now)) {
      counters.challengeAcksSuppressed++;
      return;
    }
    counters.challengeAcks++;
    this.#rx.ackNow = true;
  }
}
