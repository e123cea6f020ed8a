/**
 * A DHCPv6 server (RFC 8415), sans I/O: stateful (addresses) and stateless (parameters).
 *
 * Addresses come from the same table as IPv4's: a guest's IPv6 address has the same host part as its IPv4 address, as
 * attached guests have it. So both families agree, and no second table can disagree
 * with the first. A guest is known by the MAC address of its frame, which the switch vouches for, and not by the DUID that
 * it claims; only where no frame is seen (a server by itself, on a plain socket) it is known by its DUID. Relays' messages
 * (section 19) are taken by a server by itself only.
 */
import {
  get16,
  get32,
  getMac,
  isLinkLocalIpv6,
  netmask,
  put16,
  put32,
  putMac,
  samePrefix,
} from '../wire/address.ts';
import { domainSearchOption } from '../wire/dhcp.ts';
import {
  type Dhcpv6Message,
  type Dhcpv6Option,
  encodeDhcpv6,
  encodeDhcpv6Options,
  encodeDhcpv6Relay,
  iaAddressOption,
  iaNaOption,
  DHCPV6_OPTION as O,
  parseDhcpv6,
  parseDhcpv6Relay,
  parseIaAddress,
  parseIaNa,
  readOptionRequest,
  DHCPV6_STATUS as S,
  statusOption,
  DHCPV6_TYPE as T,
} from '../wire/dhcpv6.ts';
import { hex, LEASE_MS_DEFAULT } from './dhcp-server.ts';
import type { LeaseClient, LeasePool } from './lease-pool.ts';

/** What the server gives to its clients. */
export interface Dhcpv6ServerOptions {
  /** Who holds which address; without it the server is of the stateless kind and gives parameters alone. */
  pool?: LeasePool;
  /** The server's MAC address, of which its DUID is made. */
  mac: number;
  /** Any address of the IPv6 network, and the length of its prefix. */
  prefix: Uint8Array;
  prefixLength: number;
  /** Any address of the IPv4 network, and the length of its prefix: the host part is at least as long in IPv6. */
  ipv4: { address: number; prefixLength: number };
  leaseMs?: number;
  dnsServers?: readonly Uint8Array[];
  ntpServers?: readonly Uint8Array[];
  searchDomains?: readonly string[];
  /** Take what relays forward. Off where every client is on the link itself: a guest could pose as a relay. */
  relays?: boolean;
}

/** Kinds and lengths of a DUID (section 11). */
const DUID_LLT = 1;
const DUID_LL = 3;
const HARDWARE_ETHERNET = 1;
const DUID_LEN_MIN = 3;
const DUID_LEN_MAX = 130;
/** How long a client of the stateless kind keeps parameters (section 21.23). */
const REFRESH_S = 3600;
/** Most relays between a client and us (section 7.6, HOP_COUNT_LIMIT). */
const RELAYS_MAX = 8;

/** A request, read. */
interface Request {
  now: number;
  message: Dhcpv6Message;
  clientId: Uint8Array | undefined;
  serverId: Uint8Array | undefined;
  client: LeaseClient;
}

/** The server. */
export class Dhcpv6Server {
  readonly #options: Dhcpv6ServerOptions;
  readonly #duid: Uint8Array;
  readonly #leaseMs: number;
  readonly #parameters: ReadonlyMap<number, Uint8Array>;
  readonly counters: Record<string, number> = {
    dhcpv6_received: 0,
    dhcpv6_malformed: 0,
    dhcpv6_ignored: 0,
    dhcpv6_answered: 0,
  };

  constructor(options: Dhcpv6ServerOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? LEASE_MS_DEFAULT;
    this.#duid = new Uint8Array(10);
    put16(this.#duid, 0, DUID_LL);
    put16(this.#duid, 2, HARDWARE_ETHERNET);
    putMac(this.#duid, 4, options.mac);
    this.#parameters = parameters(options);
  }

  /**
   * Takes the message in `buf[off..end)`; the answer goes to where it came from.
   * @param mac the station of its frame; undefined where frames are not seen
   * @param multicast whether it was sent to all servers, as it must be
   */
  receive(
    now: number,
    buf: Uint8Array,
    off: number,
    end: number,
    mac: number | undefined,
    multicast: boolean,
  ): Uint8Array | undefined {
    this.counters.dhcpv6_received!++;
    const isRelayed = this.#options.relays === true && end > off && buf[off] === T.relayForward;
    return isRelayed
      ? this.#relayed(now, buf, off, end, RELAYS_MAX)
      : this.#direct(now, buf, off, end, mac, multicast);
  }

  /** Section 19.3: what a relay forwards is answered through it, and through those before it. */
  #relayed(now: number, buf: Uint8Array, off: number, end: number, depth: number): Uint8Array | undefined {
    const relayed = parseDhcpv6Relay(buf, off, end);
    const inner = relayed?.options.find(({ code }) => code === O.relayMessage)?.data;
    if (!relayed || !inner || depth === 0) {
      this.counters.dhcpv6_malformed!++;
      return undefined;
    }
    const { prefix, prefixLength } = this.#options;
    // The link is told by the relay that is closest to the client; one that knows no address of it says nothing.
    const isNearest = inner[0] !== T.relayForward;
    const isOther =
      isGlobal(relayed.linkAddress) && !samePrefix(relayed.linkAddress, 0, prefix, 0, prefixLength);
    if (isNearest && isOther) {
      this.counters.dhcpv6_ignored!++;
      return undefined;
    }
    const reply = isNearest
      ? this.#direct(now, inner, 0, inner.length, undefined, true)
      : this.#relayed(now, inner, 0, inner.length, depth - 1);
    if (!reply) return undefined;
    const interfaceId = relayed.options.filter(({ code }) => code === O.interfaceId);
    return encodeDhcpv6Relay({
      ...relayed,
      type: T.relayReply,
      options: [...interfaceId, { code: O.relayMessage, data: reply }],
    });
  }

  #direct(
    now: number,
    buf: Uint8Array,
    off: number,
    end: number,
    mac: number | undefined,
    multicast: boolean,
  ): Uint8Array | undefined {
    const message = parseDhcpv6(buf, off, end);
    if (!message) {
      this.counters.dhcpv6_malformed!++;
      return undefined;
    }
    const find = (code: number): Uint8Array | undefined =>
      message.options.find((option) => option.code === code)?.data;
    const clientId = find(O.clientId);
    const request: Request = {
      now,
      message,
      clientId,
      serverId: find(O.serverId),
      client: mac === undefined ? clientOfDuid(clientId) : { mac },
    };
    const options = this.#isValid(request) ? this.#answer(request, multicast) : undefined;
    if (!options) {
      this.counters.dhcpv6_ignored!++;
      return undefined;
    }
    this.counters.dhcpv6_answered!++;
    const isOffer = message.type === T.solicit && !this.#isRapid(request);
    return encodeDhcpv6({
      type: isOffer ? T.advertise : T.reply,
      transactionId: message.transactionId,
      options: [
        ...(request.clientId ? [{ code: O.clientId, data: request.clientId }] : []),
        { code: O.serverId, data: this.#duid },
        ...options,
      ],
    });
  }

  #isRapid({ message }: Request): boolean {
    return message.options.some((option) => option.code === O.rapidCommit);
  }

  /** Section 16: which messages must have, or must not have, identifiers. */
  #isValid({ message, clientId, serverId }: Request): boolean {
    if (!this.#options.pool && message.type !== T.informationRequest) return false;
    if (clientId && (clientId.length < DUID_LEN_MIN || clientId.length > DUID_LEN_MAX)) return false;
    const isOurs = serverId !== undefined && sameBytes(serverId, this.#duid);
    switch (message.type) {
      case T.solicit:
      case T.confirm:
      case T.rebind:
        return clientId !== undefined && serverId === undefined;
      case T.request:
      case T.renew:
      case T.release:
      case T.decline:
        return clientId !== undefined && isOurs;
      case T.informationRequest:
        // Section 16.12: one that asks for an address is no information request.
        return (
          (serverId === undefined || isOurs) &&
          !message.options.some(({ code }) => code === O.iaNa || code === O.iaTa || code === O.iaPd)
        );
      default:
        return false;
    }
  }

  #answer(request: Request, multicast: boolean): Dhcpv6Option[] | undefined {
    const { type, options } = request.message;
    switch (type) {
      case T.confirm:
        return this.#confirm(options);
      case T.informationRequest:
        return [...this.#requested(options), refreshTime()];
      default:
        // Section 18.4: we offer no unicast.
        if (!multicast) return [statusOption(S.useMulticast, 'send to ff02::1:2')];
        if (type === T.release || type === T.decline) return this.#giveBack(request);
        return [
          ...this.#associations(request),
          ...(type === T.solicit && this.#isRapid(request)
            ? [{ code: O.rapidCommit, data: new Uint8Array(0) }]
            : []),
          ...this.#requested(options),
        ];
    }
  }

  /** Section 18.3.3: are these addresses right for this link? */
  #confirm(options: readonly Dhcpv6Option[]): Dhcpv6Option[] | undefined {
    const addresses = options.flatMap(({ code, data }) => (code === O.iaNa ? addressesOf(data) : []));
    if (addresses.length === 0) return undefined;
    const { prefix, prefixLength } = this.#options;
    const areHere = addresses.every((address) => samePrefix(address, 0, prefix, 0, prefixLength));
    return [
      areHere
        ? statusOption(S.success, 'addresses are of this network')
        : statusOption(S.notOnLink, 'addresses are of another network'),
    ];
  }

  /** Answers each association; the first IA_NA gets the guest's address. */
  #associations(request: Request): Dhcpv6Option[] {
    const answers: Dhcpv6Option[] = [];
    let given = false;
    for (const { code, data } of request.message.options) {
      if (code === O.iaPd && data.length >= 12)
        answers.push(withStatus(code, data, 12, S.noPrefixAvail, 'no prefixes are delegated here'));
      if (code === O.iaTa && data.length >= 4)
        answers.push(withStatus(code, data, 4, S.noAddrsAvail, 'no temporary addresses are given here'));
      const ia = code === O.iaNa ? parseIaNa(data) : undefined;
      if (!ia) continue;
      const address = given ? undefined : this.#addressFor(request);
      given = true;
      answers.push(this.#association(ia.iaid, address, addressesOf(data)));
    }
    return answers;
  }

  #association(iaid: number, address: Uint8Array | undefined, claimed: readonly Uint8Array[]): Dhcpv6Option {
    if (!address)
      return iaNaOption({
        iaid,
        t1Seconds: 0,
        t2Seconds: 0,
        options: [statusOption(S.noAddrsAvail, 'no address is free for this association')],
      });
    const validSeconds = Math.floor(this.#leaseMs / 1000);
    const preferredSeconds = Math.floor(validSeconds * 0.8);
    // Section 21.4 recommends half and four fifths of the preferred lifetime.
    return iaNaOption({
      iaid,
      t1Seconds: Math.floor(preferredSeconds * 0.5),
      t2Seconds: Math.floor(preferredSeconds * 0.8),
      options: [
        iaAddressOption(address, preferredSeconds, validSeconds),
        // Section 18.3.4: what the client must give up has lifetimes of zero.
        ...claimed.filter((other) => !sameBytes(other, address)).map((other) => iaAddressOption(other, 0, 0)),
      ],
    });
  }

  /** The address of the guest, by its place in the table of IPv4 addresses. */
  #addressFor({ now, client, message }: Request): Uint8Array | undefined {
    const { pool } = this.#options;
    const lease = pool?.offer(now, client);
    if (!pool || !lease) return undefined;
    const isBinding =
      message.type !== T.solicit || message.options.some(({ code }) => code === O.rapidCommit);
    if (isBinding && !pool.bind(now, client, lease.address, this.#leaseMs)) return undefined;
    return this.#mapAddress(lease.address);
  }

  #mapAddress(ipv4: number): Uint8Array {
    const { prefix, prefixLength, ipv4: network } = this.#options;
    const address = new Uint8Array(16);
    for (let i = 0; i < 16; i++)
      address[i] = prefix[i]! & (0xff00 >> Math.min(8, Math.max(0, prefixLength - i * 8)));
    const hostPart = ipv4 & ~netmask(network.prefixLength);
    put32(address, 12, (get32(address, 12) | hostPart) >>> 0);
    return address;
  }

  /** The IPv4 address that goes with an IPv6 one. */
  #unmapAddress(address: Uint8Array): number {
    const { address: own, prefixLength } = this.#options.ipv4;
    const mask = netmask(prefixLength);
    return ((own & mask) | (get32(address, 12) & ~mask)) >>> 0;
  }

  /** RELEASE and DECLINE (sections 18.3.7 and 18.3.8). */
  #giveBack({ now, client, message }: Request): Dhcpv6Option[] {
    const { pool, prefix, prefixLength } = this.#options;
    const answers: Dhcpv6Option[] = [];
    for (const { code, data } of message.options) {
      if (code !== O.iaNa || data.length < 12) continue;
      const addresses = addressesOf(data).filter((address) =>
        samePrefix(address, 0, prefix, 0, prefixLength),
      );
      const isKnown = addresses.some((address) => {
        const ipv4 = this.#unmapAddress(address);
        return message.type === T.decline ? pool?.decline(now, client, ipv4) : pool?.release(client, ipv4);
      });
      if (!isKnown) answers.push(withStatus(code, data, 12, S.noBinding, 'no such binding'));
    }
    return [...answers, statusOption(S.success, 'done')];
  }

  #requested(options: readonly Dhcpv6Option[]): Dhcpv6Option[] {
    const asked = readOptionRequest(options.find(({ code }) => code === O.optionRequest)?.data);
    return asked.flatMap((code) => {
      const data = this.#parameters.get(code);
      return data ? [{ code, data }] : [];
    });
  }
}

function parameters(options: Dhcpv6ServerOptions): Map<number, Uint8Array> {
  const result = new Map<number, Uint8Array>();
  const { dnsServers = [], ntpServers = [], searchDomains = [] } = options;
  if (dnsServers.length > 0) result.set(O.dnsServers, joined(dnsServers));
  if (searchDomains.length > 0) result.set(O.domainList, domainSearchOption(searchDomains));
  // RFC 5908 section 4: each server is a suboption, 1 for an address.
  if (ntpServers.length > 0)
    result.set(O.ntpServer, encodeDhcpv6Options(ntpServers.map((data) => ({ code: 1, data }))));
  return result;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.length * 16);
  parts.forEach((part, i) => {
    bytes.set(part, i * 16);
  });
  return bytes;
}

/** A client that is known by its DUID alone; the MAC address in one of the usual kinds serves static leases (section 11). */
function clientOfDuid(duid: Uint8Array | undefined): LeaseClient {
  if (!duid || duid.length < DUID_LEN_MIN) return { mac: 0 };
  const kind = get16(duid, 0);
  const macOff = kind === DUID_LLT ? 8 : 4;
  const isEthernet =
    (kind === DUID_LLT || kind === DUID_LL) &&
    duid.length === macOff + 6 &&
    get16(duid, 2) === HARDWARE_ETHERNET;
  return { mac: isEthernet ? getMac(duid, macOff) : 0, clientId: hex(duid) };
}

/** False for link-local and unspecified addresses, which do not tell a link. */
function isGlobal(address: Uint8Array): boolean {
  return !isLinkLocalIpv6(address, 0) && address.some((byte) => byte !== 0);
}

function refreshTime(): Dhcpv6Option {
  const data = new Uint8Array(4);
  put32(data, 0, REFRESH_S);
  return { code: O.informationRefreshTime, data };
}

/** The addresses in an IA_NA's data. */
function addressesOf(data: Uint8Array): Uint8Array[] {
  const options = parseIaNa(data)?.options ?? [];
  return options.flatMap((option) => {
    const address = option.code === O.iaAddress ? parseIaAddress(option.data) : undefined;
    return address ? [address] : [];
  });
}

/** An association that is answered with a status: its fixed part of `len` bytes, times zeroed, and the status. */
function withStatus(code: number, data: Uint8Array, len: number, status: number, text: string): Dhcpv6Option {
  const inner = encodeDhcpv6Options([statusOption(status, text)]);
  const answer = new Uint8Array(len + inner.length);
  answer.set(data.subarray(0, 4));
  answer.set(inner, len);
  return { code, data: answer };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
