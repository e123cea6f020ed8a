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
import { errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { clearEventFd, EPOLLIN } from '#common/native/epoll';
import { cryptoRng } from '#common/rng';
import { Guests } from './guests.ts';
import { NativeHost } from './host/native.ts';
import { Poller } from './host/poller.ts';
import { Switch } from './link/switch.ts';
import type { CommandName, Commands, Reply, Request, WorkerSettings } from './messages.ts';
import { type Publication, Publisher } from './publish/publisher.ts';
import { LeasePool } from './service/lease-pool.ts';
import { EgressRules } from './service/policy.ts';
import { attachServices, DEFAULT_HOST_NAMES, type Services } from './service/services.ts';
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
  readonly #guests: Guests;
  readonly #publisher: Publisher;
  readonly #publications = new Map<number, Publication>();
  readonly #handlers: Handlers;
  #nextPublication = 1;
  #closed = false;
  #now: number = performance.now();

  constructor(settings: WorkerSettings) {
    this.#settings = settings;
    this.#stopFlag = new Int32Array(settings.stop);
    const log = portLog(settings.port, {});
    const now = (): number => this.#now;
    const uplinkMac = settings.gatewayMac;
    this.#policy = new EgressRules(now);
    // An internal network lets nothing out, names to be resolved included.
    if (settings.internal) this.#policy.set({ default: 'deny', rules: [] });
    this.#host = new NativeHost(this.#poller, log, now);
    this.#switch = new Switch({ uplinkMac, mtuBytes: settings.mtuBytes, now });
    const ipv4 = { address: settings.gateway, prefixLength: settings.prefixLength };
    const mac = new Uint8Array(6);
    putMac(mac, 0, uplinkMac);
    this.#stack = new Stack({
      host: this.#host,
      link: this.#switch.uplink,
      rng: cryptoRng,
      log,
      mac,
      ipv4,
      hostLoopback: !settings.internal,
      egress: this.#policy,
      hostAddresses: settings.hostAddresses,
    });
    this.#switch.uplink.start({
      frame: (buf, off, end) => this.#stack.receive(this.#now, buf, off, end),
    });
    const leases = new LeasePool({
      network: settings.network,
      prefixLength: settings.prefixLength,
      excluded: [settings.gateway, ...settings.hostAddresses],
    });
    this.#leases = leases;
    this.#services = attachServices(this.#stack, this.#host, {
      clock: { now, wallMs: systemClock.wallMs, arm: systemClock.arm },
      rng: cryptoRng,
      log,
      ipv4,
      pool: leases,
      mtuBytes: settings.mtuBytes,
      policy: this.#policy,
      searchDomains: settings.searchDomains,
      ...(settings.domain === undefined ? {} : { domain: settings.domain }),
    });
    this.#guests = new Guests({
      settings,
      poller: this.#poller,
      fabric: this.#switch,
      stack: this.#stack,
      services: this.#services,
      leases,
      now,
    });
    this.#publisher = new Publisher({ host: this.#host, stack: this.#stack, log, now });
    this.#handlers = this.#commandHandlers();
    this.#poller.watch(settings.wakeFd, EPOLLIN, () => this.#commands());
  }

  #commandHandlers(): Handlers {
    return {
      attach: (wish) => this.#guests.attach(wish),
      setNames: ({ id, names }) => this.#guests.setNames(id, names),
      detach: ({ id }) => this.#guests.detach(id),
      publish: (rule) => {
        const publication = this.#publisher.publish(rule);
        if (typeof publication === 'string') return { error: publication };
        const id = this.#nextPublication++;
        this.#publications.set(id, publication);
        return { id, port: publication.port };
      },
      unpublish: ({ id }) => {
        this.#publications.get(id)?.close();
        this.#publications.delete(id);
        return undefined;
      },
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
      denied: () => this.#policy.denied().map((flow) => ({ ...flow, idleMs: this.#now - flow.at })),
      reserve: ({ address, mac, name }) => {
        this.#leases.reserve(address, { mac }, name);
        return undefined;
      },
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
      flows: () => [...this.#stack.flows()],
      switchTable: () => [...this.#switch.addresses()],
      stats: () => this.#stats(),
      close: () => {
        this.#closed = true;
        return undefined;
      },
    };
  }

  /** Names given by the owner come beside those by which every guest knows its host. */
  #setHostNames(names: Record<string, Uint8Array[]>): undefined {
    const gateway = [mapped(this.#settings.gateway)];
    const standing = Object.fromEntries(DEFAULT_HOST_NAMES.map((name) => [name, gateway]));
    this.#services.setHostNames({ ...standing, ...names });
  }

  /** Runs until the network is closed, then frees what it holds. */
  run(): void {
    post(this.#settings.port, { ready: true });
    while (!this.#closed && Atomics.load(this.#stopFlag, 0) === 0) {
      this.#poller.wait(this.#sleepMs());
      this.#now = performance.now();
      this.#poller.dispatch();
      this.#host.poll(this.#now);
      this.#publisher.poll(this.#now);
      this.#services.poll(this.#now);
      this.#stack.poll(this.#now);
    }
    this.#publisher.close();
    this.#services.close();
    this.#stack.close();
    this.#switch.close();
    this.#poller.close();
    this.#settings.port.close();
  }

  #sleepMs(): number {
    const wakeAt = Math.min(this.#stack.pollAt(), this.#services.pollAt());
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
      return { id, error: { code: errorCode(error), message: errorMessage(error) } };
    }
  }

  #stats(): Record<string, number> {
    const { tcpAccepted, udpClients, udpDropped } = this.#publisher.counters;
    return {
      ...this.#stack.counters,
      ...this.#services.counters(),
      ...this.#policy.counters,
      ...this.#guests.counters(),
      guests: this.#guests.size,
      publications: this.#publications.size,
      published_tcp_accepted: tcpAccepted,
      published_udp_clients: udpClients,
      published_udp_dropped: udpDropped,
    };
  }
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
