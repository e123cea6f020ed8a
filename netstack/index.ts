/**
 * A network in userspace: guests' Ethernet frames on one side, native sockets on the other.
 * This is the public surface of `drydock/netstack`.
 */

import type { Socket } from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import type { Log } from '#common/log';
import type { GatewayForward, SocketForward } from './config-vpnkit.ts';
import type { FlowInfo } from './flow/inside.ts';
import type { FaultOptions } from './link/faults.ts';
import type { LinkProtocol, StreamProtocol } from './link/listeners.ts';
import type { CaptureOptions, CaptureState } from './link/pcap.ts';
import { startNetwork } from './network.ts';
import type { Zone } from './service/dns/names.ts';
import type { DnsLogEntry } from './service/dns/query-log.ts';
import type { Upstream } from './service/dns/upstreams.ts';
import type { LeaseRecord } from './service/lease-pool.ts';
import type { DeniedFlow, PolicyConfig } from './service/policy.ts';

/** What DHCP tells machines besides their address, router, resolver, time server and names. */
export interface DhcpExtras {
  /** Routers by the subnet to which they lead, `10.0.0.0/8`. */
  dhcpRoutes?: Record<string, string>;
  /** How long machines that can do without IPv4 shall do so (RFC 8925). */
  ipv6OnlyWaitMs?: number;
  /** Where browsers find their proxy's settings. */
  proxyAutoConfigUrl?: string;
}

/** How a network is made. */
export interface NetworkOptions extends DhcpExtras {
  /** Name for logs, metrics and thread names. */
  name: string;
  /**
   * IPv4 subnet in CIDR form, such as `172.17.0.0/16`. Without it guests in namespaces speak IPv6 alone, and what the stack
   * has of IPv4 is its own matter.
   */
  subnet?: string;
  /** The stack's own address in the subnet: router, DNS, DHCP and NTP server. Default: the first usable one. */
  gateway?: string;
  /**
   * IPv6 subnet in CIDR form, such as `fd00:1::/64`, and the stack's address in it (default: the first one). Without it the
   * network speaks IPv4 only. Guests in namespaces get the address with the same host part as their IPv4 address; machines
   * configure themselves by router advertisements.
   */
  subnet6?: string;
  gateway6?: string;
  /** The gateway's MAC address; default: made from its address as docker does. */
  gatewayMac?: string;
  /**
   * Further addresses that are the gateway's, and the address of the host's side to which each leads, as `192.168.127.254` to
   * `127.0.0.1`. The policy decides by where they lead.
   */
  hostAddresses?: Record<string, string>;
  /** MAC addresses of machines that join by VPNKit's handshake, by their uuid. */
  machineMacs?: Record<string, string>;
  /** Largest IP packet on the guests' links. Default 65520 for TAPs in namespaces. */
  mtuBytes?: number;
  /** Resolvers to forward to, as `address`, `address#port`, or `/domain/address` for a domain; default: the host's resolv.conf, followed as it changes. */
  dnsUpstreams?: string[];
  /** Name of the domain in which guests are known besides their bare names. */
  domain?: string;
  /** Domains that DHCP tells guests to search. */
  searchDomains?: string[];
  /**
   * Multicast that goes out to the host's network, as `mdns`, `ssdp`, or `address:port` of an IPv4 group; answers to the asker
   * reach the guest. Default: none.
   */
  multicast?: string[];
  /** First and last address that DHCP gives; default: those of the subnet. */
  dhcpFirst?: string;
  dhcpLast?: string;
  /** Ports of the gateway that lead to an address of the host's side, instead of to the same port of its loopback. */
  gatewayForwards?: GatewayForward[];
  /** Destinations whose TCP connections go to a unix socket of the host; see service/socket-forwards.ts. */
  socketForwards?: SocketForward[];
  /** No traffic to or from outside; guests still reach each other. */
  internal?: boolean;
  /** Guests don't reach each other, only the gateway and what is behind it. */
  isolated?: boolean;
  /** Makes the guests' wires bad, for tests. */
  faults?: FaultOptions;
  /** Called when the MAC address of a virtual machine appears on the network, and when it has gone or been silent for long. */
  onStation?: (event: { mac: string; present: boolean }) => void;
  log?: Log;
}

/** How a guest in a network namespace is attached. */
export interface AttachOptions {
  /** A process that lives in the network namespace. Either this or `namespacePath` is given. */
  pid?: number;
  /** The namespace's file, such as `/run/netns/NAME`. */
  namespacePath?: string;
  /** Name of the interface to make there, such as `eth0`. */
  interfaceName: string;
  /** Names that the network's DNS answers with this guest's address. */
  names: string[];
  /** Wanted address; default: the next free one of the pool. */
  address?: string;
  /** Wanted IPv6 address; default: made from the IPv4 address. */
  address6?: string;
  /** Wanted MAC address, `02:42:ac:11:00:02`; default: made from the address as docker does. */
  mac?: string;
  /** Further addresses, of 169.254.0.0/16. */
  linkLocal?: string[];
  /** A guest of several networks goes out by the one with the lowest metric; default: the number at the end of the name. */
  metric?: number;
  /** Settings of the guest's network namespace, by their path under /proc/sys. */
  settings?: Record<string, string>;
}

/** What the DNS tells one guest. */
export interface GuestResolving {
  /** Resolvers for its questions instead of the network's, as in {@link NetworkOptions.dnsUpstreams}. */
  upstreams?: string[];
  /** Names that it knows besides those of the network, with their addresses. */
  names?: Record<string, string[]>;
}

/** A guest on a network. */
export interface Attachment {
  readonly interfaceName: string;
  /** Its IPv4 address; '' on a network without IPv4. */
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  /** On a network with IPv6. */
  readonly ipv6?: { address: string; prefixLength: number; gateway: string };
  readonly mac: string;
  /** Replaces the names under which this guest is known. */
  setNames(names: string[]): Promise<void>;
  /** Replaces what the network's DNS tells this guest alone. */
  setResolving(view: GuestResolving): Promise<void>;
  /** Takes the guest off the network, closes its flows and frees its address. */
  detach(): Promise<void>;
}

/** A port of the host that leads to a guest. */
export interface PublishOptions {
  protocol: 'tcp' | 'udp';
  /** Host address to listen on, `127.0.0.1`, `0.0.0.0`, `::1`, `::`. */
  hostAddress: string;
  /** Host port, or 0 for any free one. */
  hostPort: number;
  guestAddress: string;
  guestPort: number;
}

/** A published port; `hostPort` is the real one. */
export interface PublishedPort extends PublishOptions {
  close(): Promise<void>;
}

/** A port of the gateway whose connections come to this process. */
export interface ServedPort {
  /** Ends it; connections that are open stay. */
  close(): Promise<void>;
}

export type { FlowInfo } from './flow/inside.ts';
export type { FaultOptions } from './link/faults.ts';
/** How a virtual machine's wire is spoken; see link/listeners.ts. */
export type { LinkProtocol, StreamProtocol } from './link/listeners.ts';
export type { CaptureOptions, CaptureState } from './link/pcap.ts';
export type { DnsLogEntry } from './service/dns/query-log.ts';

/** A place where virtual machines plug in. */
export interface LinkListening {
  /** The real one: a TCP port of 0 is replaced. */
  readonly url: string;
  /** Ends listening. Machines that are plugged in stay. */
  close(): Promise<void>;
}

/** A virtual machine that was plugged in by its stream. */
export interface PluggedLink {
  /** Resolves when the machine has gone. */
  readonly gone: Promise<void>;
  close(): Promise<void>;
}

/** A capture in progress. What fails meanwhile is logged when it happens. */
export interface RunningCapture {
  /** How many frames were kept and lost; `failed` is the errno of a disk or pipe that has failed. */
  state(): Promise<CaptureState>;
  /** Ends it, and tells how it went. */
  close(): Promise<CaptureState>;
}

/** What a live capture takes. */
export type LiveOptions = Pick<CaptureOptions, 'filter' | 'snapLen'>;

/** A capture that is read as it is made. */
export interface LiveCapture {
  /** The bytes of a pcap file. A reader that is slow loses whole frames; destroying it ends the capture. */
  readonly stream: Readable;
  state(): Promise<CaptureState>;
}

/** An address that is in use. */
export interface LeaseInfo {
  address: string;
  mac: string;
  name: string | undefined;
  /** `attached` by us, `bound` or `offered` by DHCP, `reserved` for a guest that has not come. */
  state: string;
  /** Time until it ends; Infinity for one that does not. */
  leftMs: number;
}

/** HTTP proxies of a network. Upstream ones are `host:port` or `http://user:password@host:port`. */
export interface HttpProxyConfig {
  /** Port of the gateway at which guests have an explicit proxy; undefined: none. */
  port?: number;
  /** Upstream proxy for plain requests, and for connections to `transparentHttpPorts`. */
  http?: string;
  /** Upstream proxy for tunnels, and for connections to `transparentHttpsPorts`. */
  https?: string;
  /** Names, `*.suffix`, addresses and networks that are reached directly, with commas between. */
  exclude?: string;
  /** Destination ports that go by `http` without the guest's knowing. */
  transparentHttpPorts?: number[];
  transparentHttpsPorts?: number[];
  /** Names, suffixes, addresses and networks: nothing else is reached by the proxies, or at the transparent ports. */
  allow?: string[];
  /** What the proxies say of what is not in `allow`; `%s` stands for it. */
  allowMessage?: string;
}

/** A running network. */
export interface Network {
  readonly name: string;
  readonly subnet: string;
  readonly gateway: string;
  readonly gatewayMac: string;
  attach(options: AttachOptions): Promise<Attachment>;
  /** @throws DrydockError ERR_PORT_IN_USE, ERR_PORT_PRIVILEGED, ERR_ADDRESS_NOT_AVAILABLE */
  publish(options: PublishOptions): Promise<PublishedPort>;
  /** Extra names for DNS, such as `host.docker.internal`. */
  setHostNames(names: Record<string, string | string[]>): Promise<void>;
  /** Forwards DNS questions to these resolvers; undefined: to those of the host's resolv.conf, as it changes. */
  resolveBy(upstreams: Upstream[] | undefined): Promise<void>;
  /** Adds names below a domain; records of the same zone are put in front of those it has, its default is replaced. */
  addZone(zone: Zone): Promise<void>;
  zones(): Promise<Zone[]>;
  /**
   * Puts a policy in force for flows that begin from now on.
   * @throws DrydockError ERR_POLICY_INVALID
   */
  setPolicy(policy: PolicyConfig): Promise<void>;
  /**
   * Offers guests an HTTP proxy at a port of the gateway, and leads their connections by an upstream proxy; again to change
   * it, undefined to end it.
   * @throws DrydockError ERR_PROXY_INVALID, ERR_PROXY_UNKNOWN
   */
  useHttpProxy(proxy: HttpProxyConfig | undefined): Promise<void>;
  /** What the policy has denied, latest last; `idleMs` since the last attempt. */
  denied(): Promise<(DeniedFlow & { idleMs: number })[]>;
  /** What guests have asked the DNS server lately, latest last; `ageMs` since the question. */
  dnsLog(): Promise<(DnsLogEntry & { ageMs: number })[]>;
  /** Keeps an address for the guest with this MAC (a static lease). @throws DrydockError ERR_ADDRESS_* */
  reserve(address: string, mac: string, name?: string): Promise<void>;
  /** Addresses in use: attached guests and DHCP's leases. */
  leases(): Promise<LeaseInfo[]>;
  /** DHCP's leases in force, to be kept between runs. */
  keepLeases(): Promise<LeaseRecord[]>;
  /** Takes kept leases back; those that ran out or do not fit are left out. Returns how many it took. */
  restoreLeases(records: LeaseRecord[]): Promise<number>;
  flows(): Promise<FlowInfo[]>;
  /**
   * Connects into a guest from this process.
   * @throws DrydockError ERR_ADDRESS_INVALID, ERR_GUEST_UNREACHABLE
   */
  dial(address: string, port: number): Promise<Socket>;
  /**
   * Takes the connections of guests to a TCP port of the gateway, which otherwise leads to that port of the host's loopback.
   * The egress policy is not asked. `guest` is the address of the guest.
   * @throws DrydockError ERR_SERVICE_PORT_IN_USE
   */
  serve(port: number, take: (stream: Socket, guest: string) => void): Promise<ServedPort>;
  /** MAC addresses that the switch knows, with the number of their port; 0 is the gateway. */
  switchTable(): Promise<{ mac: string; port: number }[]>;
  /**
   * Lets virtual machines plug in at `url`: `unix:///path`, `tcp://127.0.0.1:1234` for the stream protocols,
   * `unixgram:///path` for vfkit, `unixpacket:///path` for bess.
   * @throws DrydockError ERR_LINK_URL_INVALID, ERR_LINK_SOCKET_IN_USE
   */
  listenLink(protocol: LinkProtocol, url: string): Promise<LinkListening>;
  /** Plugs a machine in over a stream that is open already, such as a hijacked HTTP connection. */
  plugStream(protocol: StreamProtocol, stream: Duplex): Promise<PluggedLink>;
  /** Plugs a machine in over a pair of descriptors, such as 0 and 1; they are duplicated and stay the caller's. */
  plugDescriptors(protocol: StreamProtocol, readFd: number, writeFd: number): Promise<PluggedLink>;
  /**
   * Writes the frames of all guests to a file or pipe.
   * @throws DrydockError ERR_FILTER_INVALID, ERR_CAPTURE_OPTIONS, ERR_CAPTURE_NO_READER
   */
  capture(options: CaptureOptions): Promise<RunningCapture>;
  /**
   * Gives the frames of all guests as they pass.
   * @throws DrydockError ERR_FILTER_INVALID, ERR_CAPTURE_OPTIONS
   */
  captureLive(options?: LiveOptions): Promise<LiveCapture>;
  /** Counters by name, for metrics and `docker network inspect`. */
  stats(): Promise<Record<string, number>>;
  /** Ends every flow and frees threads, sockets and interfaces. */
  close(): Promise<void>;
}

/**
 * Starts a network in a thread of its own.
 *
 * @throws DrydockError ERR_ADDRESS_INVALID, ERR_MTU_INVALID, ERR_FAULTS_INVALID
 */
export function createNetstack(options: NetworkOptions): Promise<Network> {
  return startNetwork(options);
}
