/**
 * moby.buildkit.v1.frontend.LLBBridge: the gateway, by which a client runs the frontend of its build itself. buildx does:
 * it asks for the Dockerfile's result by Solve, may look into it, and gives it back by Return.
 */
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { DrydockError } from '#common/errors';
import { formatNormal, parseReference, parseTagged } from '../../image/reference.ts';
import { resolveInRoot } from '../../mounts/rootpath.ts';
import { patternTest } from '../ignore.ts';
import { withRoot } from '../scratch-root.ts';
import type { Builds } from '../service.ts';
import {
  EvaluateRequest,
  GatewaySolveRequest,
  GatewaySolveResponse,
  PongResponse,
  ReadDirRequest,
  ReadDirResponse,
  ReadFileRequest,
  ReadFileResponse,
  ResolveImageConfigRequest,
  ResolveImageConfigResponse,
  ReturnRequest,
  StatFileRequest,
  StatFileResponse,
} from './control-messages.ts';
import { GO_MODE } from './filesync.ts';
import { type GrpcHandler, type ServerCall, unaryHandler } from './grpc.ts';
import type { Job, JobResult } from './jobs.ts';
import { definitionOfImage } from './llb.ts';
import type { Stat } from './messages.ts';
import { credentialsOfSession } from './sessions.ts';
import type { Solver } from './solver.ts';

const SERVICE = '/moby.buildkit.v1.frontend.LLBBridge';
/** The build that a call belongs to (buildkit, client/buildid). */
const BUILD_HEADER = 'buildkit-controlapi-buildid';
/** Bytes of a file that one answer carries: below gRPC's limit of the client. */
const FILE_BYTES_MAX = 3 << 20;
const NOTHING = new Uint8Array();

/** buildkit, frontend/gateway/pb/caps.go. What is not listed a client takes for missing. */
const FRONTEND_CAPS = [
  'solve.base',
  'resolveimage',
  'resolveimage.resolvemode',
  'readfile',
  'return',
  'returnmap',
  'readdir',
  'statfile',
  'importcaches',
  'proto.refarray',
  'reference.output',
  'frontend.inputs',
  'gateway.evaluate',
  'gateway.solve.evaluate',
  'gateway.warnings',
];
/** buildkit, solver/pb/caps.go: what a graph may have in it. */
const LLB_CAPS = [
  'source.local',
  'source.local.unique',
  'source.local.sessionid',
  'source.local.followpaths',
  'source.local.excludepatterns',
  'source.local.sharedkeyhint',
  'source.local.differ',
  'source.git',
  'source.git.fullurl',
  'source.http',
  'constraints',
  'platform',
  'meta.ignorecache',
  'meta.description',
  'meta.exportcache',
];

/** The methods of the service, by path. */
export function gatewayMethods(solver: Solver, builds: Builds): [path: string, handler: GrpcHandler][] {
  const jobOf = (call: ServerCall): Promise<Job> =>
    solver.jobs.get(String(call.metadata[BUILD_HEADER] ?? ''), call.signal);
  const method = (
    name: string,
    handle: (job: Job, request: Buffer) => Promise<Uint8Array>,
  ): [string, GrpcHandler] => [
    `${SERVICE}/${name}`,
    unaryHandler(async (request, call) => handle(await jobOf(call), request)),
  ];
  return [
    method('Ping', async () =>
      PongResponse.encode({ FrontendAPICaps: enabled(FRONTEND_CAPS), LLBCaps: enabled(LLB_CAPS) }),
    ),
    method('Solve', (job, request) => solve(solver, builds, job, GatewaySolveRequest.decode(request))),
    method('Return', async (job, request) => finish(job, ReturnRequest.decode(request))),
    method('Evaluate', async (job, request) => {
      // Results are made when they are asked for.
      job.result(EvaluateRequest.decode(request).Ref);
      return NOTHING;
    }),
    method('Inputs', async () => NOTHING),
    // A warning of the client's own frontend: it shows it itself.
    method('Warn', async () => NOTHING),
    method('ReadFile', (job, request) => readPart(builds, job, ReadFileRequest.decode(request))),
    method('ReadDir', async (job, request) => {
      const { Ref, DirPath, IncludePattern } = ReadDirRequest.decode(request);
      const matches = IncludePattern === '' ? () => true : patternTest(IncludePattern);
      return withTree(builds, job.result(Ref), async (root) => {
        const folder = await resolveInRoot(root, DirPath);
        const names = (await readdir(folder)).filter(matches).sort();
        return ReadDirResponse.encode({
          entries: await Promise.all(names.map((name) => statOf(join(folder, name), name))),
        });
      });
    }),
    method('StatFile', async (job, request) => {
      const { Ref, Path } = StatFileRequest.decode(request);
      return withTree(builds, job.result(Ref), async (root) =>
        StatFileResponse.encode({
          stat: await statOf(await resolveInRoot(root, Path), Path.split('/').at(-1)!),
        }),
      );
    }),
    method('ResolveImageConfig', (job, request) =>
      resolveImage(builds, job, ResolveImageConfigRequest.decode(request)),
    ),
  ];
}

const enabled = (ids: readonly string[]): { ID: string; Enabled: boolean }[] =>
  ids.map((ID) => ({ ID, Enabled: true }));

async function solve(
  solver: Solver,
  builds: Builds,
  job: Job,
  { Definition, Frontend, FrontendOpt, FrontendInputs }: GatewaySolveRequest,
): Promise<Uint8Array> {
  if (Frontend === '' && (Definition?.def.length ?? 0) === 0)
    return GatewaySolveResponse.encode({ result: {} });
  const result =
    Frontend === ''
      ? await solver.definition(job, Definition!)
      : await solver.frontend(job, { frontend: Frontend, attributes: FrontendOpt, inputs: FrontendInputs });
  const id = job.addResult(result);
  if (result.kind === 'folder')
    return GatewaySolveResponse.encode({ result: { ref: { id, def: undefined } } });
  const config = await builds.images.library.parts.content.read(result.imageId);
  return GatewaySolveResponse.encode({
    result: {
      ref: { id, def: definitionOfImage(result.imageId) },
      metadata: new Map([['containerimage.config', config]]),
    },
  });
}

/** The client's frontend is through: with a result, with none, or with an error, which Solve then answers. */
function finish(job: Job, { result, error }: ReturnType<typeof ReturnRequest.decode>): Uint8Array {
  if (error) {
    job.settle.reject(new DrydockError('ERR_BUILD', error.message));
    return NOTHING;
  }
  const refs = result?.ref ? [result.ref] : [...(result?.refs?.refs.values() ?? [])];
  const ids = refs.flatMap((ref) => (ref && ref.id !== '' ? [ref.id] : []));
  if (ids.length > 1)
    throw new DrydockError('ERR_NOT_IMPLEMENTED', 'several results of one build are not supported');
  job.settle.resolve(ids[0] === undefined ? undefined : job.result(ids[0]));
  return NOTHING;
}

/** The files of a result. */
async function withTree<T>(
  builds: Builds,
  result: JobResult,
  work: (root: string) => Promise<T>,
): Promise<T> {
  if (result.kind === 'folder') return work(result.path);
  return withRoot(builds.roots, builds.images.library.layersOf(result.imageId), work);
}

const absent = (path: string): DrydockError =>
  new DrydockError('ERR_PATH_NOT_FOUND', `open ${path}: no such file or directory`);

function readPart(
  builds: Builds,
  job: Job,
  { Ref, FilePath, Range }: ReturnType<typeof ReadFileRequest.decode>,
): Promise<Uint8Array> {
  return withTree(builds, job.result(Ref), async (root) => {
    const path = await resolveInRoot(root, FilePath);
    const found = await lstat(path).catch(() => undefined);
    if (!found?.isFile()) throw absent(FilePath);
    if (found.size > FILE_BYTES_MAX && !(Range && Range.Length <= FILE_BYTES_MAX && Range.Length > 0))
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `${FilePath} is larger than ${FILE_BYTES_MAX} bytes: read it in parts`,
      );
    const data = await readFile(path);
    const { Offset = 0, Length = 0 } = Range ?? {};
    return ReadFileResponse.encode({ Data: data.subarray(Offset, Length > 0 ? Offset + Length : undefined) });
  });
}

async function statOf(path: string, name: string): Promise<Partial<Stat>> {
  const found = await lstat(path, { bigint: true }).catch(() => undefined);
  if (!found) throw absent(name);
  const type = found.isDirectory() ? GO_MODE.directory : found.isSymbolicLink() ? GO_MODE.symlink : 0;
  return {
    path: name,
    mode: type + Number(found.mode & 0o777n),
    uid: Number(found.uid),
    gid: Number(found.gid),
    size: Number(found.size),
    modTime: found.mtimeNs,
    linkname: found.isSymbolicLink() ? await readlink(path) : '',
  };
}

/** The configuration of an image, which is pulled for it. */
async function resolveImage(
  builds: Builds,
  { session, signal }: Job,
  { Ref, Platform, ResolveMode }: ReturnType<typeof ResolveImageConfigRequest.decode>,
): Promise<Uint8Array> {
  const { images } = builds;
  const { OS, Architecture, Variant } = Platform ?? { OS: '', Architecture: '', Variant: '' };
  const platform = [OS, Architecture, Variant].filter((part) => part !== '').join('/');
  let id = images.library.find(Ref)?.id;
  if (id === undefined || ResolveMode === 'pull')
    [id] = await images.pull(Ref, {
      credentials: await credentialsOfSession(session, parseReference(Ref).domain, signal),
      progress: () => {},
      signal,
      ...(platform !== '' && { platform }),
    });
  const Config = await images.library.parts.content.read(id!);
  return ResolveImageConfigResponse.encode({ Digest: id!, Config, Ref: formatNormal(parseTagged(Ref)) });
}
