/**
 * The gateway's ARP (RFC 826) with address conflict detection (RFC 5227): it answers for its own addresses only, learns who asks,
 * asks for guests that it wants to reach, and defends its address.
 */

import type { StackContext } from '../flow/context.ts';
import { formatMac, get32, MAC_BROADCAST, mapped } from '../wire/address.ts';
import { ARP_LEN, ARP_REPLY, ARP_REQUEST, type ArpRepr, emitArp, parseArp } from '../wire/arp.ts';

/** A defence at most this often, so that two stubborn stations do not answer each other for ever (RFC 5227 section 2.4). */
const DEFEND_INTERVAL_MS = 10_000;
/** Announcements at the start, so that stations forget who had the address before (RFC 5227 section 2.3). */
const ANNOUNCEMENTS = 2;
const ANNOUNCE_INTERVAL_MS = 2000;

export class Arp {
  readonly #context: StackContext;
  readonly #mac: number;
  #defendedAt: number = Number.NEGATIVE_INFINITY;
  #announcements = 0;
  #announceAt: number = Number.NEGATIVE_INFINITY;
  readonly #sender: Uint8Array = mapped(0);

  constructor(context: StackContext, mac: number) {
    this.#context = context;
    this.#mac = mac;
  }

  /** Takes an ARP packet from the frame of `srcMac`. */
  input(buf: Uint8Array, off: number, end: number, srcMac: number): void {
    const { counters, addressing, neighbours, now } = this.#context;
    const arp = parseArp(buf, off, end);
    // A sender that is not the station of the frame speaks for another: nobody here has reason to.
    if (!arp || arp.senderMac !== srcMac) {
      counters.arpMalformed++;
      return;
    }
    const forUs = addressing.isOwnIpv4(arp.targetIp);
    if (addressing.isOwnIpv4(arp.senderIp)) this.#conflict(arp);
    else if (addressing.isGuestIpv4(arp.senderIp)) {
      this.#sender.set(mapped(arp.senderIp));
      if (arp.op === ARP_REPLY) {
        counters.arpReplies++;
        neighbours.answer(now, this.#sender, 0, arp.senderMac);
        return;
      }
      counters.arpRequests++;
      // Announcements (sender = target) and questions to us tell who is there; others' questions only refresh.
      const announced = arp.senderIp === arp.targetIp;
      if ((forUs || announced) && !neighbours.learn(now, this.#sender, 0, arp.senderMac, false)) return;
    } else if (arp.senderIp !== 0) {
      counters.ipMartianSource++;
      return;
    }
    // A question, or a probe (sender 0.0.0.0) for our address: both get the answer that it is taken.
    if (arp.op === ARP_REQUEST && forUs) this.#answer(arp);
  }

  /** Asks who has `addr` (mapped): everybody, or the station that had it. */
  solicit(addr: Uint8Array, mac: number): void {
    const senderIp = this.#context.addressing.ipv4;
    const question = { op: ARP_REQUEST, senderIp, targetMac: 0, targetIp: get32(addr, 12) };
    this.#send(mac < 0 ? MAC_BROADCAST : mac, question);
  }

  poll(now: number): void {
    if (this.#announcements >= ANNOUNCEMENTS || now < this.#announceAt) return;
    this.#announcements++;
    this.#announceAt = now + ANNOUNCE_INTERVAL_MS;
    this.#announce(this.#context.addressing.ipv4);
  }

  pollAt(): number {
    return this.#announcements < ANNOUNCEMENTS ? this.#announceAt : Number.POSITIVE_INFINITY;
  }

  /** Another station claims our address: say whose it is, for all to hear. */
  #conflict(arp: ArpRepr): void {
    const { counters, log, now } = this.#context;
    counters.arpConflicts++;
    if (now - this.#defendedAt < DEFEND_INTERVAL_MS) return;
    this.#defendedAt = now;
    log.warn(
      { mac: formatMac(arp.senderMac) },
      'another station claims the address of the gateway; defending it',
    );
    this.#announce(arp.senderIp);
  }

  #announce(ip: number): void {
    this.#send(MAC_BROADCAST, { op: ARP_REQUEST, senderIp: ip, targetMac: 0, targetIp: ip });
  }

  #answer(arp: ArpRepr): void {
    const reply = { op: ARP_REPLY, senderIp: arp.targetIp, targetMac: arp.senderMac, targetIp: arp.senderIp };
    this.#send(arp.senderMac, reply);
  }

  #send(to: number, fields: Omit<ArpRepr, 'senderMac'>): void {
    const { output } = this.#context;
    emitArp({ ...fields, senderMac: this.#mac }, output.head, output.arpOff);
    output.arp(to, ARP_LEN);
  }
}
