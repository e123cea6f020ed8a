/**
 * What the main thread and a network's thread say to each other. The network's thread never returns to its event loop
 * while it runs: it is woken by an eventfd and then takes what has come (receiveMessageOnPort); its own messages leave
 * at once.
 */
import type { MessagePort } from 'node:worker_threads';
import type { FlowInfo, MulticastGroup } from './flow/inside.ts';
import type { FaultOptions } from './link/faults.ts';
import type { LinkEndpoint, LinkProtocol, StreamProtocol } from './link/listeners.ts';
import type { CaptureOptions, CaptureState, LiveCaptureOptions } from './link/pcap.ts';
import type { NetworkPlan } from './plan.ts';
import type { DhcpServerExtras } from './service/dhcp-server.ts';
import type { Zone } from './service/dns/names.ts';
import type { DnsLogEntry } from './service/dns/query-log.ts';
import type { Upstream } from './service/dns/upstreams.ts';
import type { ForwardRule } from './service/gateway-forwards.ts';
import type { LeaseRecord } from './service/lease-pool.ts';
import type { DeniedFlow, PolicyConfig } from './service/policy.ts';
import type { ProxyRoutes } from './service/proxied-host.ts';
import type { SocketForwardRule } from './service/socket-forwards.ts';

/** What a network's thread is started with. Addresses are numbers. */
export interface WorkerSettings extends NetworkPlan {
  name: string;
  gatewayMac: number;
  hostAddresses: ReadonlyMap<number, number>;
  machineMacs: [uuid: string, mac: number][];
  mtuBytes: number;
  domain: string | undefined;
  searchDomains: string[];
  internal: boolean;
  isolated: boolean;
  relayedGroups: MulticastGroup[];
  gatewayForwards: ForwardRule[];
  socketForwards: SocketForwardRule[];
  /** First and last address that DHCP gives. */
  dhcpFirst: number | undefined;
  dhcpLast: number | undefined;
  dhcpExtras: DhcpServerExtras;
  faults: FaultOptions | undefined;
  port: MessagePort;
  /** eventfd that wakes the thread. */
  wakeFd: number;
  /** Int32: nonzero tells the thread to end. */
  stop: SharedArrayBuffer;
}

/** A lease as it crosses the threads. */
export interface LeaseRow {
  address: number;
  mac: number;
  name: string | undefined;
  state: string;
  /** Infinity for one that does not end. */
  leftMs: number;
}

/** Commands to the thread, with what they take and what they give. */
export interface Commands {
  attach: {
    take: {
      namespacePath: string;
      interfaceName: string;
      names: string[];
      address: number | undefined;
      address6: Uint8Array | undefined;
      mac: number | undefined;
      linkLocal: number[];
      metric: number | undefined;
      settings: Record<string, string> | undefined;
    };
    give: { id: number; address: number | undefined; address6: Uint8Array | undefined; mac: number };
  };
  setNames: { take: { id: number; names: string[] }; give: undefined };
  setResolving: {
    take: { id: number; upstreams: Upstream[] | undefined; names: [name: string, addresses: Uint8Array[]][] };
    give: undefined;
  };
  detach: { take: { id: number }; give: undefined };
  publish: {
    take: {
      protocol: 'tcp' | 'udp';
      hostAddr: Uint8Array;
      hostPort: number;
      guestAddr: Uint8Array;
      guestPort: number;
    };
    give: { id: number; port: number } | { error: string };
  };
  unpublish: { take: { id: number }; give: undefined };
  setHostNames: { take: Record<string, Uint8Array[]>; give: undefined };
  setUpstreams: { take: Upstream[]; give: undefined };
  addZone: { take: Zone; give: undefined };
  zones: { take: undefined; give: Zone[] };
  setPolicy: { take: PolicyConfig; give: undefined };
  denied: { take: undefined; give: (DeniedFlow & { idleMs: number })[] };
  dnsLog: { take: undefined; give: (DnsLogEntry & { ageMs: number })[] };
  reserve: { take: { address: number; mac: number; name: string | undefined }; give: undefined };
  leases: { take: undefined; give: LeaseRow[] };
  keepLeases: { take: undefined; give: LeaseRecord[] };
  restoreLeases: { take: LeaseRecord[]; give: number };
  flows: { take: undefined; give: FlowInfo[] };
  switchTable: { take: undefined; give: { mac: number; port: number }[] };
  setProxyRoutes: { take: ProxyRoutes; give: undefined };
  /** Takes over one end of a socket pair, and writes one byte to it when the guest has accepted. */
  dial: { take: { fd: number; addr: Uint8Array; port: number }; give: undefined };
  /** Takes the connections of guests to a port of the gateway; `served` follows for each. */
  serve: { take: { port: number }; give: { id: number } };
  unserve: { take: { id: number }; give: undefined };
  listenLink: {
    take: { protocol: LinkProtocol; endpoint: LinkEndpoint };
    give: { id: number; port: number };
  };
  unlistenLink: { take: { id: number }; give: undefined };
  /** The thread owns the descriptors from now on; `unplugged` follows when the machine goes. */
  plugLink: {
    take: { protocol: StreamProtocol; readFd: number; writeFd: number };
    give: { id: number };
  };
  unplugLink: { take: { id: number }; give: undefined };
  /** A descriptor among the options is the thread's from now on. */
  capture: { take: CaptureOptions | LiveCaptureOptions; give: { id: number } };
  captureState: { take: { id: number }; give: CaptureState | undefined };
  endCapture: { take: { id: number }; give: CaptureState };
  stats: { take: undefined; give: Record<string, number> };
  close: { take: undefined; give: undefined };
}

/** A command's name. */
export type CommandName = keyof Commands;

/** Main to worker. */
export interface Request<N extends CommandName = CommandName> {
  id: number;
  command: N;
  argument: Commands[N]['take'];
}

/** Worker to main. `code` is set for errors of the operating kind. */
export type Reply =
  | { id: number; result: unknown }
  | { id: number; error: { code: string | undefined; message: string } }
  | { log: 'debug' | 'info' | 'warn' | 'error'; fields: object; message: string }
  | { unplugged: number }
  | { station: number; present: boolean }
  /** A guest's connection to what is served: a descriptor that is the receiver's, and who it is, 16 bytes. */
  | { served: number; fd: number; guest: Uint8Array }
  | { ready: true };
