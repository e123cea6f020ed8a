/**
 * A network's thread: one blocking loop over TAPs, sockets and the main thread's wake-ups, which runs everything to
 * completion. It does not return to Node's event loop until the network is closed, so no promise, timer or stream works
 * in here, and need not: every part is a machine that is told the time.
 *
 * The wait is bounded by a tick, and each turn runs JavaScript: that is what lets `worker.terminate()` and
 * `process.exit()` succeed even if the kick that usually wakes the thread is lost.
 */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { systemClock } from '#common/clock';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { hostClockQuality } from '#common/native/clock';
import { clearEventFd, EPOLLIN } from '#common/native/epoll';
import { NamespaceLostError } from '#common/native/ifconfig';
import { cryptoRng, seededRng } from '#common/rng';
import type { Closable } from './flow/host.ts';
import { Guests } from './guests.ts';
import { Handles } from './handles.ts';
import { calls } from './host/calls.ts';
import { NativeHost } from './host/native.ts';
import { Poller } from './host/poller.ts';
import { Captures } from './link/captures.ts';
import { Faults } from './link/faults.ts';
import type { Link } from './link/link.ts';
import { LinkListeners } from './link/listeners.ts';
import { SoftwareOffload } from './link/offload.ts';
import { type PortCounters, Switch } from './link/switch.ts';
import { Machines } from './machines.ts';
import type { CommandName, Commands, Reply, Request, WorkerSettings } from './messages.ts';
import { shadowedIpv4 } from './plan.ts';
import { type Publication, Publisher } from './publish/publisher.ts';
import { ForwardedHost } from './service/gateway-forwards.ts';
import { LeasePool } from './service/lease-pool.ts';
import { EgressRules } from './service/policy.ts';
import { ProxiedHost } from './service/proxied-host.ts';
import { attachServices, DEFAULT_HOST_NAMES, type Services } from './service/services.ts';
import { SocketForwards } from './service/socket-forwards.ts';
import { Stack } from './stack.ts';
import { mapped, putMac } from './wire/address.ts';

/** Tells the other end of a dialled socket pair that the guest has accepted. */
const ACCEPTED: Uint8Array = Uint8Array.of(1);
/** Longest sleep of the loop. */
const TICK_MS = 100;

type Handlers = { [N in CommandName]: (argument: Commands[N]['take']) => Commands[N]['give'] };

class NetworkThread {
  readonly #settings: WorkerSettings;
  readonly #stopFlag: Int32Array;
  readonly #poller: Poller = new Poller();
  readonly #host: NativeHost;
  readonly #switch: Switch;
  readonly #stack: Stack;
  readonly #services: Services;
  readonly #leases: LeasePool;
  readonly #policy: EgressRules;
  readonly #forwards: SocketForwards;
  readonly #proxied: ProxiedHost;
  readonly #guests: Guests;
  readonly #publisher: Publisher;
  readonly #publications = new Handles<Publication>();
  readonly #linkListeners: LinkListeners;
  readonly #served = new Handles<Closable>();
  readonly #linkHandles = new Handles<Closable>();
  readonly #plugged = new Handles<Closable>();
  readonly #captures: Captures;
  readonly #faults: Faults | undefined;
  readonly #handlers: Handlers;
  #closed = false;
  #now: number = performance.now();

  constructor(settings: WorkerSettings) {
    this.#settings = settings;
    this.#stopFlag = new Int32Array(settings.stop);
    const log = portLog(settings.port, {});
    log.debug({ calls: calls.kind }, 'system calls that come several at a time');
    const now = (): number => this.#now;
    const uplinkMac = settings.gatewayMac;
    this.#policy = new EgressRules(now, ({ at: _at, count: _count, ...flow }) => {
      // That an internal network lets nothing out is no news.
      if (!settings.internal) log.info(flow, 'the policy denied a flow');
    });
    // An internal network lets nothing out, names to be resolved included.
    if (settings.internal) this.#policy.set({ default: 'deny', rules: [] });
    if (settings.faults) {
      const { seed } = settings.faults;
      this.#faults = new Faults(settings.faults, seed === undefined ? cryptoRng : seededRng(seed), now);
    }
    this.#host = new NativeHost(this.#poller, log, now);
    this.#switch = new Switch({
      uplinkMac,
      mtuBytes: settings.mtuBytes,
      isolated: settings.isolated,
      now,
      stationChanged: (mac, present) => post(settings.port, { station: mac, present }),
    });
    this.#captures = new Captures(this.#switch, systemClock.wallMs, log);
    const ipv4 = { address: settings.gateway, prefixLength: settings.prefixLength };
    const ipv6 = settings.ipv6 && {
      ...settings.ipv6,
      router: { searchDomains: settings.searchDomains, managed: true, other: true },
    };
    const mac = new Uint8Array(6);
    putMac(mac, 0, uplinkMac);
    this.#forwards = new SocketForwards(
      new ForwardedHost(this.#host, settings.gatewayForwards),
      settings.socketForwards,
      (path, sink) => this.#host.connectPath(path, sink),
    );
    this.#proxied = new ProxiedHost(this.#forwards, this.#policy);
    this.#stack = new Stack({
      host: this.#proxied,
      link: this.#switch.uplink,
      rng: cryptoRng,
      log,
      mac,
      ipv4,
      ...(ipv6 && { ipv6 }),
      hostLoopback: !settings.internal,
      egress: this.#policy,
      relayedGroups: settings.relayedGroups,
      hostAddresses: settings.hostAddresses,
    });
    this.#switch.uplink.start({
      frame: (buf, off, end) => this.#stack.receive(this.#now, buf, off, end),
    });
    const leases = new LeasePool({
      network: settings.network,
      prefixLength: settings.prefixLength,
      ...(settings.dhcpFirst !== undefined && { first: settings.dhcpFirst }),
      ...(settings.dhcpLast !== undefined && { last: settings.dhcpLast }),
      excluded: [settings.gateway, ...settings.hostAddresses.keys(), ...shadowedIpv4(settings)],
    });
    this.#leases = leases;
    this.#services = attachServices(this.#stack, this.#host, {
      clock: { now, wallMs: systemClock.wallMs, arm: systemClock.arm },
      rng: cryptoRng,
      log,
      ipv4,
      ...(settings.ipv6 && { ipv6: settings.ipv6 }),
      pool: leases,
      mac: uplinkMac,
      mtuBytes: settings.mtuBytes,
      policy: this.#policy,
      clockQuality: hostClockQuality,
      searchDomains: settings.searchDomains,
      dhcp: settings.dhcpExtras,
      ...(settings.domain === undefined ? {} : { domain: settings.domain }),
    });
    this.#guests = new Guests({
      settings,
      poller: this.#poller,
      fabric: this.#switch,
      stack: this.#stack,
      services: this.#services,
      leases,
      wire: (link) => this.#wire(link),
      now,
    });
    this.#linkListeners = new LinkListeners({
      poller: this.#poller,
      fabric: this.#switch,
      log,
      mtuBytes: settings.mtuBytes,
      registry: new Machines(leases, settings.machineMacs),
      wire: (link) => this.#wire(link),
    });
    this.#publisher = new Publisher({ host: this.#host, stack: this.#stack, log, now });
    this.#handlers = this.#commandHandlers();
    this.#poller.watch(settings.wakeFd, EPOLLIN, () => this.#commands());
  }

  #commandHandlers(): Handlers {
    return {
      attach: (wish) => this.#guests.attach(wish),
      setNames: ({ id, names }) => this.#guests.setNames(id, names),
      setResolving: ({ id, ...view }) => this.#guests.setResolving(id, view),
      detach: ({ id }) => this.#guests.detach(id),
      publish: (rule) => {
        const publication = this.#publisher.publish(rule);
        if (typeof publication === 'string') return { error: publication };
        return { id: this.#publications.add(publication), port: publication.port };
      },
      unpublish: ({ id }) => this.#publications.close(id),
      setHostNames: (names) => this.#setHostNames(names),
      setUpstreams: (upstreams) => {
        this.#services.setUpstreams(upstreams);
        return undefined;
      },
      addZone: (zone) => {
        this.#services.addZone(zone);
        return undefined;
      },
      zones: () => [...this.#services.names.zones()],
      setPolicy: (policy) => {
        this.#policy.set(policy);
        return undefined;
      },
      setProxyRoutes: (routes) => {
        this.#proxied.setRoutes(routes);
        this.#policy.setProxyPort(routes.explicit?.guestPort);
        return undefined;
      },
      denied: () => this.#policy.denied().map((flow) => ({ ...flow, idleMs: this.#now - flow.at })),
      dnsLog: () =>
        this.#services.dnsLog.entries().map((entry) => ({ ...entry, ageMs: this.#now - entry.at })),
      reserve: ({ address, mac, name }) => {
        this.#leases.reserve(address, { mac }, name);
        return undefined;
      },
      keepLeases: () => this.#leases.snapshot(this.#now, systemClock.wallMs()),
      restoreLeases: (records) => this.#leases.restore(records, this.#now, systemClock.wallMs()),
      leases: () =>
        this.#leases.leases(this.#now).map(({ address, mac, name, state, expiresAt }) => ({
          address,
          mac,
          name,
          state,
          leftMs: expiresAt - this.#now,
        })),
      dial: ({ fd, addr, port }) => {
        this.#host.adopt(fd, (stream) =>
          this.#stack.relay(stream, addr, 0, port, { opened: () => void stream.write(ACCEPTED, 0, 1) }),
        );
        return undefined;
      },
      serve: ({ port }) => ({ id: this.#serve(port) }),
      unserve: ({ id }) => this.#served.close(id),
      flows: () => [...this.#stack.flows()],
      switchTable: () => [...this.#switch.addresses()],
      listenLink: ({ protocol, endpoint }) => {
        const listener = this.#linkListeners.listen(protocol, endpoint);
        return { id: this.#linkHandles.add(listener), port: listener.port };
      },
      unlistenLink: ({ id }) => this.#linkHandles.close(id),
      plugLink: ({ protocol, readFd, writeFd }) => {
        const machine = this.#linkListeners.adopt(protocol, readFd, writeFd, () => {
          this.#plugged.close(id);
          post(this.#settings.port, { unplugged: id });
        });
        const id = this.#plugged.add(machine);
        return { id };
      },
      unplugLink: ({ id }) => this.#plugged.close(id),
      capture: (options) => ({ id: this.#captures.start(options) }),
      captureState: ({ id }) => this.#captures.state(id),
      endCapture: ({ id }) => this.#captures.end(id),
      stats: () => this.#stats(),
      close: () => {
        this.#closed = true;
        return undefined;
      },
    };
  }

  /** Names given by the owner come beside those by which every guest knows its host. */
  #setHostNames(names: Record<string, Uint8Array[]>): undefined {
    const { gateway: ipv4, guestsHaveIpv4, ipv6 } = this.#settings;
    const gateway = [...(guestsHaveIpv4 ? [mapped(ipv4)] : []), ...(ipv6 ? [ipv6.address] : [])];
    const standing = Object.fromEntries(DEFAULT_HOST_NAMES.map((name) => [name, gateway]));
    this.#services.setHostNames({ ...standing, ...names });
  }

  #serve(port: number): number {
    const listener = this.#stack.listenTcp(port, {
      connect: (sink, guest) =>
        this.#host.connectPair(sink, (fd) =>
          post(this.#settings.port, { served: id, fd, guest: guest.slice() }),
        ),
    });
    if (typeof listener === 'string')
      throw new DrydockError(
        'ERR_SERVICE_PORT_IN_USE',
        `Port ${port} of the gateway is taken by another service of the network.`,
      );
    const id = this.#served.add(listener);
    return id;
  }

  /** What stands between a guest's link and the switch. */
  #wire(link: Link): Link {
    const wire = this.#faults ? this.#faults.wrap(link) : link;
    return wire.offload ? wire : new SoftwareOffload(wire);
  }

  /** Runs until the network is closed, then frees what it holds. */
  run(): void {
    post(this.#settings.port, { ready: true });
    while (!this.#closed && Atomics.load(this.#stopFlag, 0) === 0) this.#turn();
    this.#linkListeners.close();
    this.#publisher.close();
    this.#services.close();
    this.#stack.close();
    this.#host.close();
    this.#switch.close();
    this.#captures.close();
    this.#poller.close();
    calls.close();
    this.#settings.port.close();
  }

  /** A function of its own: one that never returns is never compiled well. */
  #turn(): void {
    if (!this.#poller.look()) this.#poller.sleep(this.#sleepMs());
    this.#now = performance.now();
    this.#poller.dispatch();
    this.#faults?.poll(this.#now);
    this.#proxied.poll();
    this.#publisher.poll(this.#now);
    this.#services.poll(this.#now);
    this.#stack.poll(this.#now);
    this.#captures.poll(this.#now);
  }

  #sleepMs(): number {
    if (this.#proxied.pending) return 0;
    const wakeAt = Math.min(
      this.#stack.pollAt(),
      this.#services.pollAt(),
      this.#faults?.pollAt() ?? Number.POSITIVE_INFINITY,
    );
    return Math.min(TICK_MS, Math.max(0, Math.ceil(wakeAt - performance.now())));
  }

  #commands(): void {
    clearEventFd(this.#settings.wakeFd);
    for (;;) {
      const received = receiveMessageOnPort(this.#settings.port);
      if (!received) return;
      const request = received.message as Request;
      post(this.#settings.port, this.#execute(request));
    }
  }

  #execute<N extends CommandName>({ id, command, argument }: Request<N>): Reply {
    try {
      return { id, result: this.#handlers[command](argument) };
    } catch (error) {
      if (error instanceof NamespaceLostError) throw error;
      return { id, error: { code: errorCode(error), message: errorMessage(error) } };
    }
  }

  #stats(): Record<string, number> {
    const { tcpAccepted, udpClients, udpDropped } = this.#publisher.counters;
    return {
      ...this.#stack.counters,
      ...this.#services.counters(),
      ...this.#policy.counters,
      ...this.#proxied.counters,
      ...this.#forwards.counters,
      ...linkCounters(this.#switch.counters()),
      guests: this.#guests.size,
      machines: this.#linkListeners.size,
      publications: this.#publications.size,
      published_tcp_accepted: tcpAccepted,
      published_udp_clients: udpClients,
      published_udp_dropped: udpDropped,
    };
  }
}

/** Named `link_*`, as metrics are. */
function linkCounters(counters: PortCounters): Record<string, number> {
  return Object.fromEntries(
    Object.entries(counters).map(([name, value]) => [
      `link_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`,
      value,
    ]),
  );
}

function post(port: MessagePort, reply: Reply): void {
  port.postMessage(reply);
}

function portLog(port: MessagePort, bindings: object): Log {
  const at =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (fields: object, message: string): void =>
      post(port, { log: level, fields: { ...bindings, ...fields }, message });
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (more) => portLog(port, { ...bindings, ...more }),
  };
}

new NetworkThread(workerData as WorkerSettings).run();
