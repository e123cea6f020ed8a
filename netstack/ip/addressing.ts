/**
 * Who is who: the gateway's own addresses, the guests' subnet, and which addresses may cross between the two worlds.
 *
 * The guests' side knows the gateway by its own addresses; the host's side of it is loopback. So a packet to the gateway goes
 * to the host's loopback, and what comes from loopback seems to come from the gateway. Loopback addresses themselves,
 * addresses of the subnet and other martians never cross.
 */
import {
  formatAddress,
  get32,
  IPV4_BROADCAST,
  isLinkLocalIpv6,
  isLoopbackIpv4,
  isLoopbackIpv6,
  isMapped,
  isMulticastIpv4,
  isMulticastIpv6,
  isReservedIpv4,
  isThisNetworkIpv4,
  isUnspecifiedIpv6,
  mapped,
  netmask,
  sameAddress,
  samePrefix,
} from '../wire/address.ts';

const LOOPBACK_IPV4: Uint8Array = mapped(0x7f00_0001);
const LOOPBACK_IPV6: Uint8Array = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

/** The gateway's addresses. */
export interface AddressingOptions {
  ipv4: { address: number; prefixLength: number };
  ipv6?: { address: Uint8Array; prefixLength: number } | undefined;
  /**
   * Further addresses that are ours but have no services of the gateway, and the host's name for each: where it leads on the
   * host's side. The gateway answers ARP for those of the subnet.
   */
  hostAddresses?: ReadonlyMap<number, number> | undefined;
  mac: number;
}

/**
 * What a destination is: `own` the gateway, `host` another address of ours that stands for the host, `neighbour` another guest, `group` broadcast or multicast, `outside` to be
 * forwarded, `martian` never.
 */
export type DestinationKind = 'own' | 'host' | 'neighbour' | 'group' | 'outside' | 'martian';

/** The link-local address made from a MAC address (RFC 4291 appendix A). */
function linkLocal(mac: number): Uint8Array {
  const addr = new Uint8Array(16);
  addr[0] = 0xfe;
  addr[1] = 0x80;
  const high = Math.floor(mac / 0x100_0000);
  const low = mac % 0x100_0000;
  addr[8] = (high >>> 16) ^ 2;
  addr[9] = high >>> 8;
  addr[10] = high;
  addr[11] = 0xff;
  addr[12] = 0xfe;
  addr[13] = low >>> 16;
  addr[14] = low >>> 8;
  addr[15] = low;
  return addr;
}

export class Addressing {
  readonly ipv4: number;
  readonly #mask: number;
  readonly broadcastIpv4: number;
  /** Own addresses, 16 bytes. */
  readonly ownIpv4: Uint8Array;
  readonly ownIpv6: Uint8Array | undefined;
  readonly linkLocal: Uint8Array;
  readonly prefixLengthIpv6: number;
  /** The host's names, 16 bytes. */
  readonly #hostAddresses = new Map<number, Uint8Array>();

  constructor(options: AddressingOptions) {
    this.ipv4 = options.ipv4.address;
    this.#mask = netmask(options.ipv4.prefixLength);
    // A /31 or /32 has no broadcast address (RFC 3021).
    const hostBits = ~this.#mask >>> 0;
    this.broadcastIpv4 = hostBits < 2 ? IPV4_BROADCAST : (this.ipv4 | hostBits) >>> 0;
    this.ownIpv4 = mapped(this.ipv4);
    this.ownIpv6 = options.ipv6?.address.slice();
    this.prefixLengthIpv6 = options.ipv6?.prefixLength ?? 0;
    this.linkLocal = linkLocal(options.mac);
    for (const [address, target] of options.hostAddresses ?? [])
      this.#hostAddresses.set(address, mapped(target));
  }

  /** IPv6 is spoken at all. */
  get hasIpv6(): boolean {
    return this.ownIpv6 !== undefined;
  }

  /** True for the gateway's address and the host's. */
  isOwnIpv4(address: number): boolean {
    return address === this.ipv4 || this.#hostAddresses.has(address);
  }

  /** True for every address that is ours. */
  isOwn(addr: Uint8Array, off: number): boolean {
    if (isMapped(addr, off)) return this.isOwnIpv4(get32(addr, off + 12));
    return (
      this.ownIpv6 !== undefined &&
      (sameAddress(addr, off, this.ownIpv6, 0) || sameAddress(addr, off, this.linkLocal, 0))
    );
  }

  /** The own address to use towards `addr`. */
  sourceFor(addr: Uint8Array, off: number): Uint8Array {
    if (isMapped(addr, off)) return this.ownIpv4;
    return this.ownIpv6 === undefined || isLinkLocalIpv6(addr, off) ? this.linkLocal : this.ownIpv6;
  }

  /** True for a unicast address that a guest may have. */
  isGuestIpv4(address: number): boolean {
    return (
      ((address ^ this.ipv4) & this.#mask) === 0 &&
      !this.isOwnIpv4(address) &&
      address !== this.broadcastIpv4 &&
      // The subnet's own number is no host (RFC 1122 section 3.2.1.3), except where there is no room for it.
      (address !== (this.ipv4 & this.#mask) >>> 0 || this.broadcastIpv4 === IPV4_BROADCAST)
    );
  }

  /** True for a unicast IPv6 address that a guest may have: link-local or in the prefix, and not ours. */
  isGuestIpv6(addr: Uint8Array, off: number): boolean {
    if (this.isOwn(addr, off)) return false;
    return isLinkLocalIpv6(addr, off) || this.#inPrefix(addr, off);
  }

  isGuest(addr: Uint8Array, off: number): boolean {
    return isMapped(addr, off) ? this.isGuestIpv4(get32(addr, off + 12)) : this.isGuestIpv6(addr, off);
  }

  #inPrefix(addr: Uint8Array, off: number): boolean {
    return this.ownIpv6 !== undefined && samePrefix(addr, off, this.ownIpv6, 0, this.prefixLengthIpv6);
  }

  kindIpv4(address: number): DestinationKind {
    if (address === this.ipv4) return 'own';
    if (address === IPV4_BROADCAST || address === this.broadcastIpv4 || isMulticastIpv4(address))
      return 'group';
    if (this.#hostAddresses.has(address)) return 'host';
    if (((address ^ this.ipv4) & this.#mask) === 0) return 'neighbour';
    if (isLoopbackIpv4(address) || isThisNetworkIpv4(address) || isReservedIpv4(address)) return 'martian';
    return 'outside';
  }

  kindIpv6(addr: Uint8Array, off: number): DestinationKind {
    if (isMulticastIpv6(addr, off)) return 'group';
    if (this.isOwn(addr, off)) return 'own';
    if (isLinkLocalIpv6(addr, off) || this.#inPrefix(addr, off)) return 'neighbour';
    if (isUnspecifiedIpv6(addr, off) || isLoopbackIpv6(addr, off) || isMapped(addr, off)) return 'martian';
    return 'outside';
  }

  kind(addr: Uint8Array, off: number): DestinationKind {
    return isMapped(addr, off) ? this.kindIpv4(get32(addr, off + 12)) : this.kindIpv6(addr, off);
  }

  /** The host's name for a destination that is ours; undefined for others. */
  toHost(addr: Uint8Array, off: number): Uint8Array | undefined {
    if (!this.isOwn(addr, off)) return undefined;
    if (!isMapped(addr, off)) return LOOPBACK_IPV6;
    return this.#hostAddresses.get(get32(addr, off + 12)) ?? LOOPBACK_IPV4;
  }

  /**
   * The name by which a guest knows where a packet of the host's side came from: `known`, the address of ours that the guest
   * last sent to, for loopback and for where that address leads; undefined for the address itself; or null for one that must
   * not cross.
   */
  fromHost(addr: Uint8Array, off: number, known: Uint8Array): Uint8Array | undefined | null {
    if (isMapped(addr, off) !== isMapped(known, 0)) return null;
    if (isMapped(addr, off)) {
      const address = get32(addr, off + 12);
      if (isLoopbackIpv4(address)) return known;
      const target = this.#hostAddresses.get(get32(known, 12));
      if (target && get32(target, 12) === address) return known;
      return this.kindIpv4(address) === 'outside' ? undefined : null;
    }
    if (isLoopbackIpv6(addr, off)) return known;
    return this.kindIpv6(addr, off) === 'outside' ? undefined : null;
  }

  /**
   * The source to show of a multicast datagram of the host's networks: its own, or the gateway's link-local one for a link-local
   * one of another link; undefined for what must not cross.
   */
  fromNetwork(addr: Uint8Array, off: number): Uint8Array | undefined {
    if (!isMapped(addr, off) && isLinkLocalIpv6(addr, off)) return this.linkLocal;
    return this.kind(addr, off) === 'outside' ? addr.slice(off, off + 16) : undefined;
  }

  /** The source of an ICMP error of the host's side: the reporting router, or the gateway when it cannot be shown. */
  offender(reporter: Uint8Array | undefined, towards: Uint8Array, towardsOff: number): Uint8Array {
    const own = this.sourceFor(towards, towardsOff);
    if (!reporter || isMapped(reporter, 0) !== isMapped(towards, towardsOff)) return own;
    return this.kind(reporter, 0) === 'outside' ? reporter : own;
  }

  /** For logs. */
  toString(): string {
    const own = formatAddress(this.ownIpv4, 0);
    return this.ownIpv6 ? `${own}, ${formatAddress(this.ownIpv6, 0)}` : own;
  }
}
