/**
 * moby.buildkit.v1.Control, served on `POST /grpc`: what the docker driver of buildx speaks (moby/buildkit,
 * api/services/control).
 */
import { Duplex } from 'node:stream';
import { DrydockError } from '#common/errors';
import { hostPlatform } from '../../image/platform.ts';
import type { ImageUsers } from '../../image/store.ts';
import { CACHE_FILTERS, cacheFilter } from '../cache-filters.ts';
import type { CacheUsage } from '../cache-usage.ts';
import type { Builds } from '../service.ts';
import {
  BytesMessage,
  DiskUsageRequest,
  DiskUsageResponse,
  InfoResponse,
  ListWorkersResponse,
  PruneRequest,
  SolveRequest,
  SolveResponse,
  StatusRequest,
  UsageRecord,
} from './control-messages.ts';
import { gatewayMethods } from './gateway.ts';
import { type GrpcHandler, GrpcServer, type ServerCall, unaryHandler } from './grpc.ts';
import { timestamp } from './messages.ts';
import type { Sessions } from './sessions.ts';
import type { Solver } from './solver.ts';

const SERVICE = '/moby.buildkit.v1.Control';
const SESSION_HEADER = 'x-docker-expose-session-';

/** What the service works with. */
export interface ControlParts {
  solver: Solver;
  builds: Builds;
  sessions: Sessions;
  users: ImageUsers;
  /** This daemon's version, and its id. */
  version: string;
  id: string;
  nowMs: () => number;
  /** A Go duration in nanoseconds. */
}

/** Makes the server for connections of `POST /grpc`. */
export function controlServer(parts: ControlParts): GrpcServer {
  const { solver, builds } = parts;
  const methods: [string, GrpcHandler][] = [
    [
      'Solve',
      unaryHandler(async (request, { signal }) => {
        const ExporterResponse = await solver.solve(SolveRequest.decode(request), signal);
        return SolveResponse.encode({ ExporterResponse });
      }),
    ],
    ['Status', status(solver)],
    ['Session', session(parts.sessions)],
    ['Info', unaryHandler(() => InfoResponse.encode({ buildkitVersion: versionOf(parts) }))],
    ['ListWorkers', unaryHandler(() => ListWorkersResponse.encode({ record: [workerOf(parts)] }))],
    [
      'DiskUsage',
      unaryHandler(async (request) => {
        const matches = filterOf(parts, DiskUsageRequest.decode(request).filter);
        const usages = (await builds.cache.list(parts.users)).filter(matches);
        return DiskUsageResponse.encode({ record: usages.map(recordOf) });
      }),
    ],
    ['Prune', prune(parts)],
  ].map(([name, handler]) => [`${SERVICE}/${name as string}`, handler as GrpcHandler]);
  return new GrpcServer(new Map([...methods, ...gatewayMethods(solver, builds)]));
}

function status(solver: Solver): GrpcHandler {
  return async (call) => {
    for await (const request of call.messages()) {
      const job = await solver.jobs.get(StatusRequest.decode(request).Ref, call.signal);
      for await (const message of job.messages(call.signal)) await call.send(message);
      return;
    }
  };
}

/** A session inside of the connection: its bytes come and go in messages, as they would over a connection of its own. */
function session(sessions: Sessions): GrpcHandler {
  return async (call) => {
    const id = headerOf(call, 'uuid')[0];
    if (!id) throw new DrydockError('ERR_BAD_PARAMETER', 'the session has no id');
    const incoming = call.messages();
    const socket = new Duplex({
      read() {
        incoming.next().then(
          ({ value, done }) =>
            this.push(done ? null : Buffer.from(BytesMessage.decode(value as Buffer).data)),
          (error) => this.destroy(error as Error),
        );
      },
      write(chunk: Buffer, _encoding, done) {
        call.send(BytesMessage.encode({ data: chunk })).then(() => done(), done);
      },
    });
    const closed = new Promise<void>((resolve) => socket.once('close', resolve));
    call.signal.addEventListener('abort', () => socket.destroy());
    sessions.add(id, headerOf(call, 'grpc-method'), socket);
    await closed;
  };
}

/** Node joins the values of a header that occurs several times. */
const headerOf = ({ metadata }: ServerCall, name: string): string[] =>
  [metadata[SESSION_HEADER + name] ?? []].flat().flatMap((value) => value.split(/,\s*/));

function prune(parts: ControlParts): GrpcHandler {
  return async (call) => {
    for await (const bytes of call.messages()) {
      const { filter, all, keepDuration, keepBytes } = PruneRequest.decode(bytes);
      const matches = filterOf(parts, filter);
      const before = parts.nowMs() - keepDuration / 1e6;
      const { removed } = await parts.builds.cache.prune({
        matches: (usage) => matches(usage) && (usage.lastUsedMs ?? usage.createdMs) <= before,
        ...{ all, keepBytes, users: parts.users },
      });
      for (const usage of removed) await call.send(UsageRecord.encode(recordOf(usage)));
      return;
    }
  };
}

/** containerd's filters as far as they are lists of `name==value`; each of them must hold. */
function filterOf(parts: ControlParts, filters: readonly string[]): (usage: CacheUsage) => boolean {
  const wanted = new Map<string, string[]>();
  for (const text of filters.flatMap((filter) => filter.split(',')).filter((each) => each !== '')) {
    const [, name = '', operator, value = ''] = /^([a-z-]+)(==|~=|=)?"?(.*?)"?$/.exec(text) ?? [];
    if (!CACHE_FILTERS.has(name) || (operator === '~=' && name !== 'description'))
      throw new DrydockError('ERR_BAD_PARAMETER', `invalid filter ${JSON.stringify(text)}`);
    wanted.set(name, [...(wanted.get(name) ?? []), operator ? value : 'true']);
  }
  return cacheFilter(wanted, parts.nowMs());
}

const versionOf = ({ version }: ControlParts): { package: string; version: string } => ({
  package: 'drydock',
  version,
});

function workerOf(parts: ControlParts): Parameters<typeof ListWorkersResponse.encode>[0]['record'][number] {
  const { os, architecture, variant } = hostPlatform();
  return {
    ID: parts.id,
    Labels: new Map(),
    platforms: [{ OS: os, Architecture: architecture, ...(variant !== undefined && { Variant: variant }) }],
    BuildkitVersion: versionOf(parts),
  };
}

function recordOf(usage: CacheUsage): UsageRecord {
  return {
    ID: usage.id,
    Mutable: usage.mutable,
    InUse: usage.inUse,
    Size: usage.sizeBytes,
    CreatedAt: timestamp(usage.createdMs),
    LastUsedAt: usage.lastUsedMs === undefined ? undefined : timestamp(usage.lastUsedMs),
    UsageCount: usage.usageCount,
    Description: usage.description,
    RecordType: usage.type,
    Shared: usage.shared,
    Parents: usage.parents,
  };
}
