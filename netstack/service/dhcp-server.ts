/**
 * A DHCP server (RFC 2131), sans I/O: a message in, at most one message out and where it goes. Its memory is the lease
 * pool; between messages it keeps nothing else, so a restart loses only offers.
 *
 * It is the only server of its network by design, hence authoritative: a client that asks for an address that it cannot have
 * is told so at once (NAK) instead of being left to time out, and one that this server does not remember, but whose
 * address is free, keeps it.
 *
 * Addresses are given to hardware addresses that clients claim; what a client can claim is bounded by the pool.
 */
import type { Log } from '#common/log';
import { formatIpv4, formatMac, getMac, netmask } from '../wire/address.ts';
import {
  BOOT_REPLY,
  BOOT_REQUEST,
  type ClasslessRoute,
  classlessRoutesOption,
  clientFqdnOption,
  DHCP_CLIENT_PORT,
  DHCP_FLAG_BROADCAST,
  DHCP_LEN_DEFAULT,
  DHCP_OPTION,
  DHCP_SERVER_PORT,
  DHCP_TYPE,
  type DhcpMessage,
  domainSearchOption,
  encodeDhcp,
  parseDhcp,
  readByte,
  readClientFqdn,
  readText,
  readUint16,
  readUint32,
  textOption,
  uint16Option,
  uint32Option,
} from '../wire/dhcp.ts';
import { hostLabel, type Lease, type LeaseClient, type LeasePool } from './lease-pool.ts';

/** Default length of a lease. */
export const LEASE_MS_DEFAULT = 3_600_000;
/** Longest reply: what an Ethernet frame of 1500 bytes carries. */
const REPLY_LEN_MAX = 1500 - 28;
const IPV4_BROADCAST = 0xffff_ffff;
const HARDWARE_ETHERNET = 1;

/** What a server may tell besides. */
export interface DhcpServerExtras {
  /** Besides the default route, which is added because option 121 replaces option 3 (RFC 3442 page 5). */
  routes?: readonly ClasslessRoute[];
  /** Option 108: how long clients that can do without IPv4 shall do so. */
  ipv6OnlyWaitMs?: number;
  /** Option 252. */
  proxyAutoConfigUrl?: string;
}

/** What the server gives to its clients. */
export interface DhcpServerOptions extends DhcpServerExtras {
  pool: LeasePool;
  /** The server's own address, option 54. */
  serverAddress: number;
  prefixLength: number;
  leaseMs?: number;
  routers?: readonly number[];
  dnsServers?: readonly number[];
  ntpServers?: readonly number[];
  domainName?: string;
  searchDomains?: readonly string[];
  mtuBytes?: number;
  /** Take what relays forward. Off where every client is on the link itself: a guest could pose as a relay. */
  relays: boolean;
  log: Log;
}

/** A message to send, from port 67. */
export interface DhcpReply {
  bytes: Uint8Array;
  address: number;
  port: number;
  /** Where to send the frame without asking ARP, since the client has no address yet; undefined: resolve or broadcast. */
  mac: Uint8Array | undefined;
}

/** What a request says, read once. */
interface Request {
  message: DhcpMessage;
  type: number;
  client: LeaseClient;
  requested: number | undefined;
  serverId: number | undefined;
  name: string | undefined;
}

/** Options that a reply carries when the client asks for nothing in particular. */
const DEFAULT_PARAMETERS: readonly number[] = [
  DHCP_OPTION.subnetMask,
  DHCP_OPTION.router,
  DHCP_OPTION.dnsServers,
  DHCP_OPTION.domainName,
  DHCP_OPTION.mtu,
  DHCP_OPTION.broadcast,
];

/** Bytes in hexadecimal, as identifiers of clients are kept. */
export function hex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** The server. */
export class DhcpServer {
  readonly #options: DhcpServerOptions;
  readonly #pool: LeasePool;
  readonly #log: Log;
  readonly #leaseMs: number;
  /** Values of the options that are the same for every client, by code. */
  readonly #parameters: ReadonlyMap<number, Uint8Array>;
  /** Messages by kind, and those dropped. */
  readonly counters: Record<string, number> = {
    dhcp_received: 0,
    dhcp_malformed: 0,
    dhcp_spoofed: 0,
    dhcp_ignored: 0,
    dhcp_offers: 0,
    dhcp_acks: 0,
    dhcp_naks: 0,
    dhcp_declines: 0,
    dhcp_releases: 0,
    dhcp_pool_exhausted: 0,
  };

  constructor(options: DhcpServerOptions) {
    this.#options = options;
    this.#pool = options.pool;
    this.#log = options.log;
    this.#leaseMs = options.leaseMs ?? LEASE_MS_DEFAULT;
    this.#parameters = networkParameters(options);
  }

  #count(counter: string): void {
    this.counters[counter]!++;
  }

  /**
   * Takes the message in `buf[off..end)`. `sourceMac` is the frame's source where it is known: a client on the link speaks
   * only for itself, or it could release its neighbours' addresses.
   */
  receive(
    now: number,
    buf: Uint8Array,
    off: number,
    end: number,
    sourceMac?: Uint8Array,
  ): DhcpReply | undefined {
    this.#count('dhcp_received');
    const request = readRequest(buf, off, end);
    if (!request) {
      this.#count('dhcp_malformed');
      return undefined;
    }
    if (!this.#isCredible(request, sourceMac)) {
      this.#count('dhcp_spoofed');
      return undefined;
    }
    const reply = this.#answer(now, request);
    if (!reply) this.#count('dhcp_ignored');
    return reply;
  }

  #isCredible(request: Request, sourceMac: Uint8Array | undefined): boolean {
    const { relayAddress } = request.message;
    // A relay stands on the network that it asks for (RFC 2131 section 4.3.1); we know only ours.
    if (relayAddress !== 0) return this.#options.relays && this.#pool.contains(relayAddress);
    return sourceMac === undefined || getMac(sourceMac, 0) === request.client.mac;
  }

  #answer(now: number, request: Request): DhcpReply | undefined {
    const { client, message } = request;
    switch (request.type) {
      case DHCP_TYPE.discover:
        return this.#discover(now, request);
      case DHCP_TYPE.request:
        return this.#request(now, request);
      case DHCP_TYPE.inform:
        // RFC 2131 section 4.3.5: to ciaddr, without an address and without a lease time.
        return message.clientAddress === 0 ? undefined : this.#reply(request, DHCP_TYPE.ack, undefined, now);
      case DHCP_TYPE.decline:
        if (this.#isOurs(request) && request.requested !== undefined) {
          if (this.#pool.decline(now, client, request.requested)) {
            this.#count('dhcp_declines');
            this.#log.warn(
              { address: formatIpv4(request.requested), mac: formatMac(client.mac) },
              'DHCP client found its address in use by another',
            );
          }
        }
        return undefined;
      case DHCP_TYPE.release:
        if (this.#isOurs(request) && this.#pool.release(client, message.clientAddress))
          this.#count('dhcp_releases');
        return undefined;
      default:
        return undefined;
    }
  }

  #isOurs(request: Request): boolean {
    return request.serverId === undefined || request.serverId === this.#options.serverAddress;
  }

  #discover(now: number, request: Request): DhcpReply | undefined {
    const lease = this.#pool.offer(now, request.client, request.requested);
    if (!lease) {
      this.#count('dhcp_pool_exhausted');
      this.#log.warn(
        { mac: formatMac(request.client.mac) },
        'DHCP pool is exhausted; the client gets no offer',
      );
      return undefined;
    }
    // RFC 4039 section 3.1: the client takes the ACK at once, in place of an offer.
    if (request.message.options.has(DHCP_OPTION.rapidCommit)) return this.#bind(now, request, lease.address);
    return this.#reply(request, DHCP_TYPE.offer, lease, now);
  }

  /** RFC 2131 section 4.3.2: the four situations of a REQUEST. */
  #request(now: number, request: Request): DhcpReply | undefined {
    const { message, requested, serverId } = request;
    if (serverId !== undefined) {
      // SELECTING. Another server was chosen: what we offered is free again.
      if (serverId !== this.#options.serverAddress) {
        const own = this.#pool.find(request.client);
        if (own?.state === 'offered') this.#pool.release(request.client, own.address);
        return undefined;
      }
      return requested === undefined ? undefined : this.#bind(now, request, requested);
    }
    // INIT-REBOOT names its address in option 50; RENEWING and REBINDING in ciaddr.
    const address = message.clientAddress === 0 ? requested : message.clientAddress;
    return address === undefined ? undefined : this.#bind(now, request, address);
  }

  #bind(now: number, request: Request, address: number): DhcpReply {
    const lease = this.#pool.bind(now, request.client, address, this.#leaseMs, request.name);
    if (lease) return this.#reply(request, DHCP_TYPE.ack, lease, now);
    this.#log.info(
      { address: formatIpv4(address), mac: formatMac(request.client.mac) },
      'DHCP client asked for an address that it cannot have',
    );
    return this.#reply(request, DHCP_TYPE.nak, undefined, now);
  }

  #reply(request: Request, type: number, lease: Lease | undefined, now: number): DhcpReply {
    const { message } = request;
    const isNak = type === DHCP_TYPE.nak;
    this.#count(isNak ? 'dhcp_naks' : type === DHCP_TYPE.offer ? 'dhcp_offers' : 'dhcp_acks');
    const reply: DhcpMessage = {
      op: BOOT_REPLY,
      hardwareType: message.hardwareType,
      hops: 0,
      transactionId: message.transactionId,
      seconds: 0,
      // RFC 2131 section 4.3.2: a relay must broadcast the NAK, the client's address is wrong.
      flags: isNak && message.relayAddress !== 0 ? message.flags | DHCP_FLAG_BROADCAST : message.flags,
      clientAddress: type === DHCP_TYPE.ack ? message.clientAddress : 0,
      yourAddress: lease?.address ?? 0,
      nextServer: 0,
      relayAddress: message.relayAddress,
      hardwareAddress: message.hardwareAddress,
      options: new Map(),
    };
    this.#fillOptions(reply.options, request, type, lease, now);
    const lenMax = Math.min(
      REPLY_LEN_MAX,
      Math.max(DHCP_LEN_DEFAULT, (readUint16(message.options.get(DHCP_OPTION.maxMessageSize)) ?? 0) - 28),
    );
    return { bytes: encodeDhcp(reply, lenMax), ...destination(message, reply, isNak) };
  }

  /** RFC 2131 table 3, RFC 6842, RFC 3046; what matters most comes first, in case not all fits. */
  #fillOptions(
    options: Map<number, Uint8Array>,
    request: Request,
    type: number,
    lease: Lease | undefined,
    now: number,
  ): void {
    const asked = request.message.options;
    options.set(DHCP_OPTION.messageType, Uint8Array.of(type));
    options.set(DHCP_OPTION.serverId, uint32Option(this.#options.serverAddress));
    const clientId = asked.get(DHCP_OPTION.clientId);
    if (type === DHCP_TYPE.nak) {
      options.set(DHCP_OPTION.message, textOption('address not available on this network'));
    } else {
      if (lease) {
        const leaseS = this.#leaseSeconds(lease, now, type);
        options.set(DHCP_OPTION.leaseTime, uint32Option(leaseS));
        // RFC 2131 section 4.4.5.
        options.set(DHCP_OPTION.renewalTime, uint32Option(Math.floor(leaseS * 0.5)));
        options.set(DHCP_OPTION.rebindingTime, uint32Option(Math.floor(leaseS * 0.875)));
        if (request.type === DHCP_TYPE.discover && type === DHCP_TYPE.ack)
          options.set(DHCP_OPTION.rapidCommit, new Uint8Array(0));
      }
      this.#fillParameters(options, request, lease);
    }
    // RFC 6842: the identifier comes back; RFC 3046 section 2.2: so does the relay's information.
    if (clientId) options.set(DHCP_OPTION.clientId, clientId);
    const relay = asked.get(DHCP_OPTION.relayAgent);
    if (relay) options.set(DHCP_OPTION.relayAgent, relay);
  }

  /** A fixed lease is told as an ordinary one, so that its client keeps in touch with changed options. */
  #leaseSeconds(lease: Lease, now: number, type: number): number {
    const leftMs = lease.state === 'bound' && type === DHCP_TYPE.ack ? lease.expiresAt - now : this.#leaseMs;
    return Math.min(0xffff_fffe, Math.max(1, Math.floor(leftMs / 1000)));
  }

  #fillParameters(options: Map<number, Uint8Array>, request: Request, lease: Lease | undefined): void {
    const asked = request.message.options;
    // RFC 2131 section 4.3.1: the requested parameters, in the order of the client's preference.
    for (const code of asked.get(DHCP_OPTION.parameterList) ?? DEFAULT_PARAMETERS) {
      const value =
        code === DHCP_OPTION.hostName && lease?.name !== undefined
          ? textOption(lease.name)
          : this.#parameters.get(code);
      if (value) options.set(code, value);
    }
    const fqdn = readClientFqdn(asked.get(DHCP_OPTION.clientFqdn));
    if (fqdn) {
      const { domainName } = this.#options;
      const label = lease?.name ?? hostLabel(fqdn.name);
      const name = label && domainName ? `${label}.${domainName}` : (label ?? fqdn.name);
      options.set(
        DHCP_OPTION.clientFqdn,
        clientFqdnOption(fqdn, lease?.name !== undefined && !fqdn.noUpdate, name),
      );
    }
  }
}

/** Reads a request; undefined for what is not a client's message over Ethernet. */
function readRequest(buf: Uint8Array, off: number, end: number): Request | undefined {
  const message = parseDhcp(buf, off, end);
  if (message?.op !== BOOT_REQUEST || message.hardwareType !== HARDWARE_ETHERNET) return undefined;
  if (message.hardwareAddress.length !== 6) return undefined;
  const { options } = message;
  const type = readByte(options.get(DHCP_OPTION.messageType));
  if (type === undefined) return undefined;
  const clientId = options.get(DHCP_OPTION.clientId);
  const mac = getMac(message.hardwareAddress, 0);
  const fqdn = readClientFqdn(options.get(DHCP_OPTION.clientFqdn));
  return {
    message,
    type,
    client:
      clientId && clientId.length >= 2 && clientId.length <= 255 ? { mac, clientId: hex(clientId) } : { mac },
    requested: readUint32(options.get(DHCP_OPTION.requestedAddress)),
    serverId: readUint32(options.get(DHCP_OPTION.serverId)),
    name: fqdn?.noUpdate ? undefined : (readText(options.get(DHCP_OPTION.hostName)) ?? fqdn?.name),
  };
}

/** RFC 2131 section 4.1: where the server's messages go. */
function destination(
  request: DhcpMessage,
  reply: DhcpMessage,
  isNak: boolean,
): { address: number; port: number; mac: Uint8Array | undefined } {
  if (request.relayAddress !== 0)
    return { address: request.relayAddress, port: DHCP_SERVER_PORT, mac: undefined };
  const port = DHCP_CLIENT_PORT;
  if (isNak) return { address: IPV4_BROADCAST, port, mac: undefined };
  if (request.clientAddress !== 0) return { address: request.clientAddress, port, mac: undefined };
  if (request.flags & DHCP_FLAG_BROADCAST || reply.yourAddress === 0)
    return { address: IPV4_BROADCAST, port, mac: undefined };
  return { address: reply.yourAddress, port, mac: request.hardwareAddress };
}

function networkParameters(options: DhcpServerOptions): Map<number, Uint8Array> {
  const mask = netmask(options.prefixLength);
  const parameters = new Map([
    [DHCP_OPTION.subnetMask as number, uint32Option(mask)],
    [DHCP_OPTION.broadcast, uint32Option((options.serverAddress | ~mask) >>> 0)],
  ]);
  const put = (code: number, value: Uint8Array | undefined): void => {
    if (value && value.length > 0) parameters.set(code, value);
  };
  put(DHCP_OPTION.router, uint32Option(...(options.routers ?? [])));
  put(DHCP_OPTION.dnsServers, uint32Option(...(options.dnsServers ?? [])));
  put(DHCP_OPTION.ntpServers, uint32Option(...(options.ntpServers ?? [])));
  put(DHCP_OPTION.domainName, options.domainName ? textOption(options.domainName) : undefined);
  put(DHCP_OPTION.domainSearch, domainSearchOption(options.searchDomains ?? []));
  put(DHCP_OPTION.mtu, options.mtuBytes === undefined ? undefined : uint16Option(options.mtuBytes));
  if (options.routes?.length) {
    const defaults = (options.routers ?? []).map((router) => ({ network: 0, prefixLength: 0, router }));
    put(DHCP_OPTION.classlessRoutes, classlessRoutesOption([...options.routes, ...defaults]));
  }
  if (options.ipv6OnlyWaitMs !== undefined)
    put(DHCP_OPTION.ipv6OnlyPreferred, uint32Option(Math.floor(options.ipv6OnlyWaitMs / 1000)));
  put(
    DHCP_OPTION.proxyAutoConfig,
    options.proxyAutoConfigUrl === undefined ? undefined : textOption(options.proxyAutoConfigUrl),
  );
  return parameters;
}
