/**
 * The main thread's side of a network: starts its thread, sends it commands, and makes errors of the world into texts
 * that say what to do.
 *
 * A thread that waits in the kernel cannot be terminated from outside, and process.exit() would wait for it for ever.
 * So every network can be told to stop by a flag and a kick, and all of them are when the process exits.
 */
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { compiledEntry } from '#common/entry';
import { DrydockError } from '#common/errors';
import { type Log, nullLog } from '#common/log';
import { closeEventFd, kickEventFd, openEventFd } from '#common/native/epoll';
import { duplicate, socketPair } from '#common/native/socket';
import type { HttpProxy } from './api/http-proxy.ts';
import { planProxy } from './api/http-proxy-plan.ts';
import type { FlowInfo } from './flow/inside.ts';
import { attachWish, requireUpstream, resolvingView } from './guest-options.ts';
import { followResolvConf, RESOLV_CONF } from './host/resolv-conf.ts';
import type {
  Attachment,
  AttachOptions,
  HttpProxyConfig,
  LeaseInfo,
  LinkListening,
  LiveCapture,
  LiveOptions,
  Network,
  NetworkOptions,
  PluggedLink,
  PublishedPort,
  PublishOptions,
  RunningCapture,
  ServedPort,
} from './index.ts';
import { checkFaults } from './link/faults.ts';
import { parseLinkUrl } from './link/link-url.ts';
import type { LinkProtocol, StreamProtocol } from './link/listeners.ts';
import type { CaptureOptions, CaptureState } from './link/pcap.ts';
import type { CommandName, Commands, Reply, WorkerSettings } from './messages.ts';
import {
  type NetworkPlan,
  planNetwork,
  requireAddress,
  requireDhcpExtras,
  requireGroups,
  requireIpv4,
  requireMac,
  requireMtu,
  requireSocketForward,
} from './plan.ts';
import { publishError } from './publish/publish-error.ts';
import type { Zone } from './service/dns/names.ts';
import type { DnsLogEntry } from './service/dns/query-log.ts';
import type { Upstream } from './service/dns/upstreams.ts';
import { dockerMac, type LeaseRecord } from './service/lease-pool.ts';
import { type DeniedFlow, EgressRules, type PolicyConfig, policyFaults } from './service/policy.ts';
import { firstByte, sharePair } from './socket-pairs.ts';
import { formatAddress, formatEndpoint, formatIpv4, formatIpv6, formatMac } from './wire/address.ts';

const MEMORY_MIB_MAX = 512;

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

const running = new Set<WorkerNetwork>();
process.on('exit', () => {
  for (const network of running) network.stop();
});

/** Implements `createNetstack` of the public surface. */
export async function startNetwork(options: NetworkOptions): Promise<Network> {
  const plan = planNetwork(options);
  const mtuBytes = requireMtu(options.mtuBytes, plan.ipv6 !== undefined);
  const fault = options.faults && checkFaults(options.faults);
  if (fault !== undefined) throw new DrydockError('ERR_FAULTS_INVALID', fault);
  const upstreams = options.dnsUpstreams?.map(requireUpstream);
  const network = new WorkerNetwork(options, { ...plan, mtuBytes });
  await network.ready;
  if (!options.internal) await network.resolveBy(upstreams);
  return network;
}

class WorkerNetwork implements Network {
  readonly name: string;
  readonly subnet: string;
  readonly gateway: string;
  readonly gatewayMac: string;
  readonly ready: Promise<void>;
  readonly #plan: NetworkPlan;
  /** The policy as this thread's proxy needs it. */
  readonly #policy: EgressRules;
  #proxy: HttpProxy | undefined;
  readonly #log: Log;
  readonly #onStation: NonNullable<NetworkOptions['onStation']>;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #wakeFd: number = openEventFd();
  readonly #stop: Int32Array = new Int32Array(new SharedArrayBuffer(4));
  readonly #pending = new Map<number, Pending>();
  /** What to call when a machine that was plugged in has gone. */
  readonly #plugged = new Map<number, () => void>();
  /** What to do with guests' connections to what is served. */
  readonly #served = new Map<number, (stream: Socket, guest: string) => void>();
  readonly #exited: Promise<void>;
  #nextId = 1;
  #ended: DrydockError | undefined;
  #closing: Promise<void> | undefined;
  #unfollow: () => void = () => {};

  constructor(options: NetworkOptions, plan: NetworkPlan & { mtuBytes: number }) {
    this.name = options.name;
    this.subnet = `${formatIpv4(plan.network)}/${plan.prefixLength}`;
    this.gateway = formatIpv4(plan.gateway);
    this.#plan = plan;
    this.gatewayMac = options.gatewayMac?.toLowerCase() ?? formatMac(dockerMac(plan.gateway));
    this.#onStation = options.onStation ?? (() => {});
    this.#log = (options.log ?? nullLog).child({ network: options.name });
    this.#policy = new EgressRules(
      () => performance.now(),
      ({ at: _at, count: _count, ...flow }) => this.#log.info(flow, "the policy denied a proxy's flow"),
    );
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const settings: WorkerSettings = {
      ...plan,
      name: options.name,
      gatewayMac: options.gatewayMac === undefined ? dockerMac(plan.gateway) : requireMac(options.gatewayMac),
      hostAddresses: new Map(
        Object.entries(options.hostAddresses ?? {}).map(([address, target]) => [
          requireIpv4(address, 'host'),
          requireIpv4(target, 'host'),
        ]),
      ),
      machineMacs: Object.entries(options.machineMacs ?? {}).map(([uuid, mac]) => [
        uuid.toLowerCase(),
        requireMac(mac),
      ]),
      domain: options.domain,
      searchDomains: options.searchDomains ?? [],
      internal: options.internal ?? false,
      isolated: options.isolated ?? false,
      relayedGroups: (options.multicast ?? []).flatMap(requireGroups),
      gatewayForwards: (options.gatewayForwards ?? []).map((forward) => ({
        ...forward,
        address: requireAddress(forward.address, 'forward'),
      })),
      socketForwards: (options.socketForwards ?? []).map(requireSocketForward),
      dhcpFirst: options.dhcpFirst === undefined ? undefined : requireIpv4(options.dhcpFirst, 'lease'),
      dhcpLast: options.dhcpLast === undefined ? undefined : requireIpv4(options.dhcpLast, 'lease'),
      dhcpExtras: requireDhcpExtras(options),
      faults: options.faults,
      port: port2,
      wakeFd: this.#wakeFd,
      stop: this.#stop.buffer as SharedArrayBuffer,
    };
    this.#worker = new Worker(compiledEntry('netstack/worker'), {
      name: `net ${options.name}`,
      execArgv: [],
      // Descriptors are opened by Node and closed by us, or the other way round; Node must not close them after us.
      trackUnmanagedFds: false,
      workerData: settings,
      transferList: [port2],
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MIB_MAX },
    });
    running.add(this);
    const { promise, pending } = later();
    this.ready = promise as Promise<void>;
    this.#pending.set(0, pending);
    this.#port.on('message', (reply: Reply) => this.#receive(reply));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#fail(new Error('it has ended'));
        running.delete(this);
        this.#unfollow();
        this.#port.close();
        closeEventFd(this.#wakeFd);
        resolve();
      });
    });
  }

  /** Tells the thread to end as soon as it wakes, and wakes it. Callable while the process exits. */
  stop(): void {
    Atomics.store(this.#stop, 0, 1);
    kickEventFd(this.#wakeFd);
  }

  #receive(reply: Reply): void {
    if ('log' in reply) {
      this.#log[reply.log](reply.fields, reply.message);
      return;
    }
    if ('station' in reply) {
      this.#onStation({ mac: formatMac(reply.station), present: reply.present });
      return;
    }
    if ('served' in reply) {
      const socket = new Socket({ fd: reply.fd, allowHalfOpen: true });
      const take = this.#served.get(reply.served);
      if (take) take(socket, formatAddress(reply.guest, 0));
      else socket.destroy();
      return;
    }
    if ('unplugged' in reply) {
      this.#plugged.get(reply.unplugged)?.();
      this.#plugged.delete(reply.unplugged);
      return;
    }
    const id = 'ready' in reply ? 0 : reply.id;
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if ('error' in reply) {
      const { code, message } = reply.error;
      pending?.reject(code === undefined ? new Error(message) : new DrydockError(code, message));
    } else pending?.resolve('result' in reply ? reply.result : undefined);
  }

  #fail(cause: Error): void {
    if (this.#ended) return;
    this.#ended = this.#closing
      ? new DrydockError('ERR_NETWORK_CLOSED', `Network ${this.name} is closed.`)
      : new DrydockError(
          'ERR_NETWORK_FAILED',
          `The thread of network ${this.name} has failed: ${cause.message}. Its guests are cut off; ` +
            'remove them and the network, and make them anew.',
          { cause },
        );
    if (!this.#closing) this.#log.error({ err: cause }, this.#ended.message);
    for (const pending of this.#pending.values()) pending.reject(this.#ended);
    this.#pending.clear();
    for (const gone of this.#plugged.values()) gone();
    this.#plugged.clear();
  }

  #send<N extends CommandName>(command: N, argument: Commands[N]['take']): Promise<Commands[N]['give']> {
    if (this.#ended) return Promise.reject(this.#ended);
    const { promise, pending } = later();
    const id = this.#nextId++;
    this.#pending.set(id, pending);
    this.#port.postMessage({ id, command, argument });
    kickEventFd(this.#wakeFd);
    return promise as Promise<Commands[N]['give']>;
  }

  async attach(options: AttachOptions): Promise<Attachment> {
    const { id, address, address6, mac } = await this.#send('attach', attachWish(options, this.#plan));
    const { ipv6 } = this.#plan;
    return {
      interfaceName: options.interfaceName,
      ...(address === undefined
        ? { address: '', prefixLength: 0, gateway: '' }
        : {
            address: formatIpv4(address),
            prefixLength: this.#plan.prefixLength,
            gateway: this.gateway,
          }),
      ...(ipv6 && address6
        ? {
            ipv6: {
              address: formatIpv6(address6, 0),
              prefixLength: ipv6.prefixLength,
              gateway: formatIpv6(ipv6.address, 0),
            },
          }
        : {}),
      mac: formatMac(mac),
      setNames: (names) => this.#send('setNames', { id, names }),
      setResolving: async (view) => void (await this.#send('setResolving', { id, ...resolvingView(view) })),
      detach: () => this.#ifOpen(this.#send('detach', { id })),
    };
  }

  async publish(options: PublishOptions): Promise<PublishedPort> {
    const hostAddr = requireAddress(options.hostAddress, 'published port');
    const guestAddr = requireAddress(options.guestAddress, 'guest');
    const { protocol, hostPort, guestPort } = options;
    const given = await this.#send('publish', { protocol, hostAddr, hostPort, guestAddr, guestPort });
    if ('error' in given) throw publishError(given.error, formatEndpoint(hostAddr, 0, hostPort));
    return {
      ...options,
      hostPort: given.port,
      close: () => this.#ifOpen(this.#send('unpublish', { id: given.id })),
    };
  }

  /** Taking something off a network that has ended already has nothing left to do. */
  #ifOpen(command: Promise<undefined>): Promise<void> {
    return command.catch((error: unknown) => {
      if (error !== this.#ended) throw error;
    });
  }

  async setHostNames(names: Record<string, string | string[]>): Promise<void> {
    const entries = Object.entries(names);
    await this.#send(
      'setHostNames',
      Object.fromEntries(
        entries.map(([name, addresses]) => [
          name,
          [addresses].flat().map((address) => requireAddress(address, `name ${name}`)),
        ]),
      ),
    );
  }

  async resolveBy(upstreams: Upstream[] | undefined): Promise<void> {
    this.#unfollow();
    this.#unfollow = () => {};
    if (upstreams) return this.#send('setUpstreams', upstreams);
    this.#unfollow = followResolvConf(RESOLV_CONF, (found) => {
      this.#ifOpen(this.#send('setUpstreams', found)).catch((error: unknown) =>
        this.#log.error({ err: error }, 'resolvers could not be changed'),
      );
    });
  }

  addZone(zone: Zone): Promise<void> {
    return this.#send('addZone', zone);
  }

  zones(): Promise<Zone[]> {
    return this.#send('zones', undefined);
  }

  async setPolicy(policy: PolicyConfig): Promise<void> {
    const faults = policyFaults(policy);
    if (faults.length > 0) throw new DrydockError('ERR_POLICY_INVALID', faults.join(' '));
    await this.#send('setPolicy', policy);
    this.#policy.set(policy);
  }

  async useHttpProxy(config: HttpProxyConfig | undefined): Promise<void> {
    const before = this.#proxy;
    const planned = await planProxy(config ?? {}, this.#policy);
    this.#proxy = planned.proxy;
    try {
      await this.#send('setProxyRoutes', planned.routes);
    } finally {
      await before?.close();
    }
  }

  async denied(): Promise<(DeniedFlow & { idleMs: number })[]> {
    const now = performance.now();
    const byProxy = this.#policy.denied().map((flow) => ({ ...flow, idleMs: now - flow.at }));
    return [...(await this.#send('denied', undefined)), ...byProxy].sort((a, b) => b.idleMs - a.idleMs);
  }

  dnsLog(): Promise<(DnsLogEntry & { ageMs: number })[]> {
    return this.#send('dnsLog', undefined);
  }

  reserve(address: string, mac: string, name?: string): Promise<void> {
    return this.#send('reserve', { address: requireIpv4(address, 'lease'), mac: requireMac(mac), name });
  }

  async leases(): Promise<LeaseInfo[]> {
    const rows = await this.#send('leases', undefined);
    return rows.map((row) => ({ ...row, address: formatIpv4(row.address), mac: formatMac(row.mac) }));
  }

  async dial(address: string, port: number): Promise<Socket> {
    const addr = requireAddress(address, 'guest');
    const { socket } = await sharePair((fd) => this.#send('dial', { fd, addr, port }));
    if (await firstByte(socket)) return socket;
    socket.destroy();
    throw new DrydockError(
      'ERR_GUEST_UNREACHABLE',
      `Nobody accepts connections at ${formatEndpoint(addr, 0, port)} of network ${this.name}. Is the guest up, and its ` +
        'server listening on that address?',
    );
  }

  async serve(port: number, take: (stream: Socket, guest: string) => void): Promise<ServedPort> {
    const { id } = await this.#send('serve', { port });
    this.#served.set(id, take);
    return {
      close: async () => {
        await this.#ifOpen(this.#send('unserve', { id }));
        this.#served.delete(id);
      },
    };
  }

  keepLeases(): Promise<LeaseRecord[]> {
    return this.#send('keepLeases', undefined);
  }

  restoreLeases(records: LeaseRecord[]): Promise<number> {
    return this.#send('restoreLeases', records);
  }

  flows(): Promise<FlowInfo[]> {
    return this.#send('flows', undefined);
  }

  async switchTable(): Promise<{ mac: string; port: number }[]> {
    const rows = await this.#send('switchTable', undefined);
    return rows.map(({ mac, port }) => ({ mac: formatMac(mac), port }));
  }

  async listenLink(protocol: LinkProtocol, url: string): Promise<LinkListening> {
    const endpoint = parseLinkUrl(protocol, url);
    const { id, port } = await this.#send('listenLink', { protocol, endpoint });
    return {
      url: 'address' in endpoint ? url.replace(/:0$/, `:${port}`) : url,
      close: () => this.#ifOpen(this.#send('unlistenLink', { id })),
    };
  }

  async plugStream(protocol: StreamProtocol, stream: Duplex): Promise<PluggedLink> {
    const [theirs, ours] = socketPair();
    const near = new Socket({ fd: ours });
    near.on('error', () => near.destroy());
    stream.on('error', () => near.destroy());
    near.on('close', () => stream.destroy());
    stream.on('close', () => near.destroy());
    stream.pipe(near).pipe(stream);
    return this.#plug(protocol, theirs, theirs);
  }

  plugDescriptors(protocol: StreamProtocol, readFd: number, writeFd: number): Promise<PluggedLink> {
    return this.#plug(protocol, duplicate(readFd), duplicate(writeFd));
  }

  async #plug(protocol: StreamProtocol, readFd: number, writeFd: number): Promise<PluggedLink> {
    const { id } = await this.#send('plugLink', { protocol, readFd, writeFd });
    const gone = new Promise<void>((resolve) => this.#plugged.set(id, resolve));
    return {
      gone,
      close: () => {
        this.#plugged.get(id)?.();
        this.#plugged.delete(id);
        return this.#ifOpen(this.#send('unplugLink', { id }));
      },
    };
  }

  async capture(options: CaptureOptions): Promise<RunningCapture> {
    const { id } = await this.#send('capture', options);
    return this.#runningCapture(id);
  }

  async captureLive(options: LiveOptions = {}): Promise<LiveCapture> {
    const { socket, given } = await sharePair((fd) => this.#send('capture', { ...options, fd }));
    const capture = this.#runningCapture(given.id);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => void capture.close().catch(() => undefined));
    return { stream: socket, state: capture.state };
  }

  #runningCapture(id: number): RunningCapture {
    let last: CaptureState = { frames: 0, dropped: 0, failed: undefined };
    const keep = (state: CaptureState | undefined): CaptureState => {
      last = state ?? last;
      return last;
    };
    return {
      state: async () => keep(await this.#send('captureState', { id })),
      close: async () => keep(await this.#send('endCapture', { id })),
    };
  }

  stats(): Promise<Record<string, number>> {
    return this.#send('stats', undefined);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (!this.#ended) {
      const closed = this.#send('close', undefined);
      await closed.catch(() => undefined);
    }
    await this.#proxy?.close();
    this.stop();
    await this.#exited;
  }
}

function later(): { promise: Promise<unknown>; pending: Pending } {
  let pending: Pending | undefined;
  const promise = new Promise<unknown>((resolve, reject) => {
    pending = { resolve, reject };
  });
  return { promise, pending: pending! };
}
