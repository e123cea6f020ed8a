/** Stand-ins for what the daemon's services need of the host: no root, no namespaces, no mounts. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { ManualClock } from '#common/clock';
import { DrydockError } from '#common/errors';
import { type Log, nullLog } from '#common/log';
import { seededRng } from '#common/rng';
import type { BridgeMount, BridgeMountOptions } from '#fsbridge';
import type {
  Attachment,
  AttachOptions,
  GuestResolving,
  Network,
  NetworkOptions,
  PublishedPort,
  PublishOptions,
} from '#netstack';
import { apiPlugins } from '../../../daemon/api/index.ts';
import { createApi } from '../../../daemon/api/server.ts';
import type { Builds } from '../../../daemon/build/service.ts';
import { DEFAULTS } from '../../../daemon/config-options.ts';
import type { ContainerDefaults } from '../../../daemon/container/create.ts';
import { EventBus } from '../../../daemon/events/bus.ts';
import type { Image, ImageStore, RootStore } from '../../../daemon/image/store.ts';
import type {
  ExitStatus,
  Jail,
  JailProcess,
  JailReportRow,
  JailSpec,
  JailStats,
  KnownLimits,
  ProcessSpec,
  Runtime,
} from '../../../daemon/runtime/runtime.ts';
import { containerDefaults, createServices, type Services } from '../../../daemon/services.ts';

/** A process that a test drives: it writes what the test says and ends when the test, or a signal, says so. */
export class FakeProcess implements JailProcess {
  readonly pid: number;
  readonly spec: ProcessSpec;
  readonly stdin: PassThrough | undefined;
  readonly stdout: PassThrough = new PassThrough();
  readonly stderr: PassThrough | undefined;
  readonly exited: Promise<ExitStatus>;
  readonly signals: (string | number)[] = [];
  readonly sizes: [number, number][] = [];
  /** Signals that the process ignores. */
  readonly ignored: Set<string | number> = new Set();
  #resolve: (status: ExitStatus) => void = () => {};

  constructor(pid: number, spec: ProcessSpec) {
    this.pid = pid;
    this.spec = spec;
    this.stdin = spec.stdin ? new PassThrough() : undefined;
    this.stderr = spec.terminal ? undefined : new PassThrough();
    this.exited = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  /** Ends the process and its output. */
  exit(code: number, oomKilled = false): void {
    this.stdout.end();
    this.stderr?.end();
    this.#resolve({ code, signal: code > 128 ? String(code - 128) : undefined, oomKilled });
  }

  resize(rows: number, columns: number): void {
    this.sizes.push([rows, columns]);
  }

  kill(signal: string | number): void {
    this.signals.push(signal);
    if (signal !== 0 && !this.ignored.has(signal)) this.exit(128 + Number(signal));
  }
}

/** A jail without walls. */
export class FakeJail implements Jail {
  readonly id: string;
  readonly pid: number;
  readonly startTime: string;
  readonly spec: JailSpec;
  readonly execs: FakeProcess[] = [];
  process: FakeProcess | undefined;
  paused = false;
  destroyed = false;
  readonly #runtime: FakeRuntime;

  constructor(runtime: FakeRuntime, spec: JailSpec) {
    this.#runtime = runtime;
    this.id = spec.id;
    this.spec = spec;
    this.pid = runtime.nextPid++;
    this.startTime = `start-${this.pid}`;
  }

  async start(): Promise<JailProcess> {
    this.#refuse(this.spec.process);
    this.process = new FakeProcess(this.pid, this.spec.process);
    this.#runtime.behave(this.process);
    return this.process;
  }

  async exec(spec: ProcessSpec): Promise<JailProcess> {
    this.#refuse(spec);
    const process = new FakeProcess(this.#runtime.nextPid++, spec);
    this.execs.push(process);
    this.#runtime.behave(process);
    return process;
  }

  #refuse(spec: ProcessSpec): void {
    const [name] = spec.args;
    if (name === 'nosuch')
      throw new DrydockError('ERR_EXEC_NOT_FOUND', `exec: "${name}": executable file not found in $PATH`);
    if (name === '/etc/passwd')
      throw new DrydockError('ERR_EXEC_PERMISSION', `exec: "${name}": permission denied`);
  }

  async pause(): Promise<void> {
    this.paused = true;
  }

  async resume(): Promise<void> {
    this.paused = false;
  }

  async update(limits: JailSpec['limits']): Promise<void> {
    Object.assign(this.spec.limits, limits);
  }

  async pids(): Promise<number[]> {
    return [this.pid];
  }

  async stats(): Promise<JailStats> {
    return {
      cpuTotalNs: 5e9,
      cpuUserNs: 3e9,
      cpuSystemNs: 2e9,
      throttledPeriods: 0,
      throttledNs: 0,
      periods: 0,
      memoryBytes: 1000,
      memoryMaxBytes: 2000,
      memoryLimitBytes: 0,
      memoryStat: {},
      pids: 1,
      pidsLimit: 0,
      blkioReadBytes: 0,
      blkioWriteBytes: 0,
    };
  }

  async destroy(): Promise<void> {
    this.destroyed = true;
  }
}

/** A machine that knows every limit. */
export const ALL_LIMITS: KnownLimits = {
  memoryBytes: true,
  memorySwapBytes: true,
  memoryReservationBytes: true,
  cpuQuotaUs: true,
  cpuShares: true,
  cpusetCpus: true,
  cpusetMems: true,
  pids: true,
  oomKillDisable: true,
  blkioWeight: true,
};

/** What containers get from a daemon without options. */
export const CONTAINER_DEFAULTS: ContainerDefaults = await containerDefaults(DEFAULTS);

/** Counts what was made, and lets a test decide what processes do. */
export class FakeRuntime implements Runtime {
  readonly name = 'fake';
  readonly jails: FakeJail[] = [];
  nextPid = 1000;
  /** Called with each new process, before anybody reads from it. */
  behave: (process: FakeProcess) => void = () => {};

  async open(): Promise<void> {}

  async create(spec: JailSpec): Promise<Jail> {
    const jail = new FakeJail(this, spec);
    this.jails.push(jail);
    return jail;
  }

  report(): JailReportRow[] {
    return [];
  }

  info(): ReturnType<Runtime['info']> {
    return {
      cgroupVersion: '2',
      cgroupDriver: 'cgroupfs',
      securityOptions: ['name=seccomp'],
      warnings: [],
      runtimes: { drydock: { path: 'drydock' } },
      defaultRuntime: 'drydock',
      limits: ALL_LIMITS,
    };
  }

  reload(): void {}

  async sweep(known: { id: string }[]): Promise<string[]> {
    return known.map(({ id }) => `killed ${id.slice(0, 12)}`);
  }

  async close(): Promise<void> {}

  /** The jail that was made last. */
  get last(): FakeJail {
    return this.jails.at(-1)!;
  }
}

/** The image of all tests. */
export const IMAGE: Image = {
  id: `sha256:${'a'.repeat(64)}`,
  tags: ['test:latest'],
  digests: [],
  config: { Cmd: ['sh'], Env: ['PATH=/bin'], Labels: { from: 'image' }, WorkingDir: '/work' },
  architecture: 'amd64',
  os: 'linux',
  created: '2026-01-01T00:00:00Z',
  history: [],
  diffIds: [`sha256:${'b'.repeat(64)}`],
  layerBytes: [1000],
  sizeBytes: 1000,
};

function fakeImages(images: Image[]): ImageStore {
  const found = (reference: string): Image => {
    const image = images.find(
      (i) => i.tags.some((t) => t === reference || t === `${reference}:latest`) || i.id === reference,
    );
    if (!image) throw new DrydockError('ERR_IMAGE_NOT_FOUND', `no such image: ${reference}`);
    return image;
  };
  return {
    get: async (reference: string) => found(reference),
    list: async () => images,
  } as unknown as ImageStore;
}

/** Root file systems that are folders, and a list of what is mounted. */
export class FakeRoots {
  readonly driver = 'fake';
  readonly made: Set<string> = new Set();
  readonly mounted: Set<string> = new Set();
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  async create(id: string): Promise<void> {
    this.made.add(id);
  }

  async mount(id: string): Promise<string> {
    this.mounted.add(id);
    const path = join(this.folder, id);
    await mkdir(path, { recursive: true });
    return path;
  }

  async unmount(id: string): Promise<void> {
    this.mounted.delete(id);
  }

  async remove(id: string): Promise<void> {
    this.made.delete(id);
  }

  places(): null {
    return null;
  }

  async sizes(): Promise<{ writableBytes: number; rootBytes: number }> {
    return { writableBytes: 10, rootBytes: 1010 };
  }

  async sweep(): Promise<string[]> {
    return [];
  }
}

/** One host's worth of networks: ports are taken across all of them, as on a real host. */
export class FakeNetworks {
  readonly attached: AttachOptions[] = [];
  /** What a guest was told last on each of its networks, by the process of its namespace. */
  readonly resolving: Map<number, GuestResolving[]> = new Map();
  readonly ports: Set<string> = new Set();
  guests = 0;
  open = 0;

  readonly create = async (options: NetworkOptions): Promise<Network> => {
    this.open++;
    const { subnet = '198.18.0.0/16' } = options;
    const base = subnet.split('/')[0]!.replace(/\.\d+$/, '');
    let next = 2;
    // The services use these; zones, policies and the like are asked for by nobody here.
    const network: Partial<Network> = {
      name: options.name,
      subnet,
      gateway: options.gateway ?? `${base}.1`,
      attach: async (wish) => {
        this.attached.push(wish);
        this.guests++;
        const told = this.resolving.get(wish.pid ?? 0) ?? [];
        this.resolving.set(wish.pid ?? 0, told);
        const index = told.push({}) - 1;
        const attachment: Attachment = {
          interfaceName: wish.interfaceName,
          address: wish.address ?? `${base}.${next++}`,
          prefixLength: Number(subnet.split('/')[1]),
          gateway: `${base}.1`,
          mac: wish.mac ?? '02:42:ac:11:00:02',
          setNames: async () => {},
          setResolving: async (view) => {
            told[index] = view;
          },
          detach: async () => {
            this.guests--;
          },
        };
        return attachment;
      },
      publish: async (wish: PublishOptions): Promise<PublishedPort> => {
        const hostPort = wish.hostPort || 49153 + this.ports.size;
        const key = `${wish.hostAddress}:${hostPort}/${wish.protocol}`;
        if (this.ports.has(key)) throw new DrydockError('ERR_PORT_IN_USE', `${key} is in use`);
        this.ports.add(key);
        return { ...wish, hostPort, close: async () => void this.ports.delete(key) };
      },
      setHostNames: async () => {},
      stats: async () => ({}),
      close: async () => {
        this.open--;
      },
    };
    return network as Network;
  };
}

/** A daemon over fakes. */
export interface FakeDaemon {
  app: FastifyInstance;
  services: Services;
  runtime: FakeRuntime;
  roots: FakeRoots;
  networks: FakeNetworks;
  clock: ManualClock;
  mounted: Set<string>;
  folder: string;
  close(): Promise<void>;
}

/** Makes a daemon whose world is a temporary folder. Pass `folder` to start again over what an earlier one left. */
export async function fakeDaemon(folder?: string, log: Log = nullLog): Promise<FakeDaemon> {
  const home = folder ?? (await mkdtemp(join(tmpdir(), 'drydock-unit-')));
  const clock = new ManualClock();
  const runtime = new FakeRuntime();
  const roots = new FakeRoots(join(home, 'roots'));
  const networks = new FakeNetworks();
  const mounted = new Set<string>();
  const mountFolder = async (options: BridgeMountOptions): Promise<BridgeMount> => {
    mounted.add(options.source);
    return {
      source: options.source,
      target: options.target,
      ended: Promise.resolve(),
      stats: async () => ({}),
      unmount: async () => void mounted.delete(options.source),
    } as BridgeMount;
  };
  const services = await createServices({
    config: { ...DEFAULTS, dataRoot: join(home, 'data') },
    version: '0.0.0',
    id: 'test',
    images: fakeImages([IMAGE]),
    roots: roots as unknown as RootStore,
    builds: {} as Builds,
    driverStatus: [],
    userMaps: undefined,
    reloadRegistries: () => {},
    containerDefaults: { ...CONTAINER_DEFAULTS },
    runtime,
    createNetstack: networks.create,
    hostSubnets: async () => [],
    cutConnections: async () => {},
    mountFolder,
    mountsFolder: join(home, 'mounts'),
    events: new EventBus(clock),
    clock,
    rng: seededRng(1),
    log,
  });
  const app = createApi(services.context, apiPlugins);
  await app.ready();
  return {
    app,
    services,
    runtime,
    roots,
    networks,
    clock,
    mounted,
    folder: home,
    async close() {
      await services.context.containers.shutdown(0).catch(() => {});
      await app.close();
      await rm(home, { recursive: true, force: true });
    },
  };
}

/** Resolves when the condition holds; it is looked at after every turn of the event loop. */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  const endAt = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > endAt) throw new Error(`in vain: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
