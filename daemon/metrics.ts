/**
 * Metrics in Prometheus' text format (version 0.0.4), with dockerd's names (moby, daemon/internal/metrics). Counts are
 * kept where things happen; what is known anyway is read when a scrape comes.
 */
import { createServer } from 'node:http';
import { cpus, totalmem } from 'node:os';
import { errorMessage } from '#common/errors';
import type { ApiContext } from './api/context.ts';
import { listenPlain } from './api/plain-server.ts';
import type { ApiPlugin } from './api/server.ts';

/** Upper bounds of the buckets, in seconds: the defaults of Prometheus' clients, which dockerd uses. */
const BUCKETS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** What requests are counted as, by route. */
const CONTAINER_ACTIONS: Record<string, string> = {
  'GET /containers/:id/changes': 'changes',
  'POST /commit': 'commit',
  'POST /containers/create': 'create',
  'DELETE /containers/:id': 'delete',
  'POST /containers/:id/start': 'start',
};
const NETWORK_ACTIONS: Record<string, string> = {
  'POST /networks/:id/connect': 'connect',
  'POST /networks/create': 'create',
  'DELETE /networks/:id': 'delete',
  'POST /networks/:id/disconnect': 'disconnect',
};

class Histogram {
  readonly #counts: number[] = BUCKETS_S.map(() => 0);
  #sum = 0;
  #count = 0;

  observe(seconds: number): void {
    this.#sum += seconds;
    this.#count++;
    BUCKETS_S.forEach((bound, index) => {
      if (seconds <= bound) this.#counts[index]!++;
    });
  }

  *lines(name: string, label: string): Generator<string> {
    for (const [index, bound] of BUCKETS_S.entries())
      yield `${name}_bucket{${label},le="${bound}"} ${this.#counts[index]}`;
    yield `${name}_bucket{${label},le="+Inf"} ${this.#count}`;
    yield `${name}_sum{${label}} ${this.#sum}`;
    yield `${name}_count{${label}} ${this.#count}`;
  }
}

/** A label's value in quotes. */
function quoted(value: string): string {
  return `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`;
}

/** Counts what the API does. */
export class EngineMetrics {
  readonly #containers: Map<string, Histogram> = histograms(CONTAINER_ACTIONS);
  readonly #networks: Map<string, Histogram> = histograms(NETWORK_ACTIONS);
  #buildsTriggered = 0;

  /** Watches the routes of all plugins. */
  readonly plugin: ApiPlugin = (app) => {
    app.addHook('onResponse', async (request, reply) => {
      const route = `${request.method} ${request.routeOptions.url}`;
      if (route === 'POST /build') this.#buildsTriggered++;
      if (reply.statusCode >= 400) return;
      const seconds = reply.elapsedTime / 1000;
      this.#containers.get(CONTAINER_ACTIONS[route] ?? '')?.observe(seconds);
      this.#networks.get(NETWORK_ACTIONS[route] ?? '')?.observe(seconds);
    });
  };

  /** All metrics as text. */
  async text(context: ApiContext): Promise<string> {
    const { containers, events, system } = context;
    const facts = (await system.info()) as Record<string, string>;
    const labels = {
      architecture: facts.Architecture,
      commit: context.version,
      daemon_id: facts.ID,
      graphdriver: facts.Driver,
      kernel: facts.KernelVersion,
      os: facts.OperatingSystem,
      os_type: facts.OSType,
      os_version: facts.OSVersion,
      version: context.version,
    };
    const info = Object.entries(labels).map(([name, value]) => `${name}=${quoted(String(value ?? ''))}`);
    const { healthChecks } = containers.supervisor;
    const lines = [
      ...this.#histogram(
        'container_actions',
        'The number of seconds it takes to process each container action',
        this.#containers,
      ),
      ...this.#states(context),
      ...one(
        'engine_daemon_engine_cpus_cpus',
        'gauge',
        'The number of cpus that the host system of the engine has',
        cpus().length,
      ),
      ...one(
        'engine_daemon_engine_memory_bytes',
        'gauge',
        'The number of bytes of memory that the host system of the engine has',
        totalmem(),
      ),
      ...head(
        'engine_daemon_engine_info',
        'gauge',
        'The information related to the engine and the OS it is running on',
      ),
      `engine_daemon_engine_info{${info.join(',')}} 1`,
      ...one('engine_daemon_events_total', 'counter', 'The number of events logged', events.total),
      ...one(
        'engine_daemon_events_subscribers_total',
        'gauge',
        'The number of current subscribers to events',
        events.listeners,
      ),
      ...one(
        'engine_daemon_health_checks_total',
        'counter',
        'The total number of health checks',
        healthChecks.total,
      ),
      ...one(
        'engine_daemon_health_checks_failed_total',
        'counter',
        'The total number of failed health checks',
        healthChecks.failed,
      ),
      ...this.#histogram(
        'network_actions',
        'The number of seconds it takes to process each network action',
        this.#networks,
      ),
      ...one(
        'builder_builds_triggered_total',
        'counter',
        'Number of triggered image builds',
        this.#buildsTriggered,
      ),
    ];
    return `${lines.join('\n')}\n`;
  }

  *#histogram(what: string, help: string, actions: Map<string, Histogram>): Generator<string> {
    const name = `engine_daemon_${what}_seconds`;
    yield* head(name, 'histogram', help);
    for (const [action, histogram] of actions) yield* histogram.lines(name, `action=${quoted(action)}`);
  }

  *#states({ containers }: ApiContext): Generator<string> {
    const name = 'engine_daemon_container_states_containers';
    yield* head(name, 'gauge', 'The count of containers in various states');
    const states = containers.list().map(({ record }) => record.state.status);
    const count = (...wanted: string[]): number => states.filter((state) => wanted.includes(state)).length;
    const [paused, running] = [count('paused'), count('running', 'restarting')];
    yield `${name}{state="paused"} ${paused}`;
    yield `${name}{state="running"} ${running}`;
    yield `${name}{state="stopped"} ${states.length - paused - running}`;
  }
}

function histograms(actions: Record<string, string>): Map<string, Histogram> {
  return new Map(Object.values(actions).map((action) => [action, new Histogram()]));
}

function head(name: string, type: string, help: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
}

function one(name: string, type: string, help: string, value: number): string[] {
  return [...head(name, type, help), `${name} ${value}`];
}

/** The metrics while they are served. */
export interface ServedMetrics {
  /** `http://address:port/metrics` */
  readonly url: string;
  close(): Promise<void>;
}

/** Serves metrics at `address:port`. @throws ERR_LISTEN */
export async function serveMetrics(
  address: { host: string; port: number },
  metrics: EngineMetrics,
  context: ApiContext,
): Promise<ServedMetrics> {
  const server = createServer((request, response) => {
    if (request.url !== '/metrics') {
      response.writeHead(404).end('404 page not found\n');
      return;
    }
    metrics.text(context).then(
      (text) =>
        response.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text),
      (error) => response.writeHead(500).end(`${errorMessage(error)}\n`),
    );
  });
  const served = await listenPlain(server, address, `can't serve metrics on ${address.host}:${address.port}`);
  return { url: `${served.url}/metrics`, close: served.close };
}
