/**
 * `POST /build?version=2`: a build for a client that speaks BuildKit's protocol. Context, Dockerfile and logins are
 * fetched through the client's session, progress is a trace of vertices; what the instructions do is the same
 * {@link Builder}'s as for every other client.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Progress } from '../../image/store.ts';
import { type BuildObserver, type BuildOptions, BuildRunError } from '../builder.ts';
import { parseDockerfile } from '../dockerfile.ts';
import { ignorePatterns } from '../ignore.ts';
import type { StepRunner } from '../runner.ts';
import type { BuildSource, Builds } from '../service.ts';
import { type FolderRequest, fetchFolder } from './filesync.ts';
import { credentialsOfSession, type Session, Sessions } from './sessions.ts';
import { type Step, Trace } from './trace.ts';

/** A context that is sent by a request of its own waits this long for its build, and the build for it. */
const MEETING_MS_MAX = 5_000;
/** The instructions that BuildKit's clients show as steps; the others only change the configuration. */
const SHOWN = new Set(['FROM', 'RUN', 'COPY', 'ADD', 'WORKDIR']);
/** What `# syntax=` may ask for: the language that is built in. */
const SYNTAX = /^(docker\.io\/)?docker\/dockerfile(-upstream)?(:1(\.\d+)*|:latest)?(@sha256:[0-9a-f]{64})?$/;

/** A build as the client asks for it. */
export interface SessionBuildRequest {
  sessionId: string;
  /** By which it may be cancelled. */
  buildId: string;
  /** The context comes by {@link SessionBuilds.upload}. */
  isUploaded: boolean;
  /** The context, when it was fetched from elsewhere. */
  fetched: Readable | undefined;
  /** The Dockerfile's name. */
  dockerfile: string;
  options: Omit<BuildOptions, 'dockerfile' | 'contextPath'>;
  runner: StepRunner;
  progress: (line: Progress) => void;
  signal: AbortSignal;
}

/** See the module's head. */
export class SessionBuilds {
  readonly sessions: Sessions = new Sessions();
  readonly #builds: Builds;
  readonly #clock: Clock;
  readonly #running = new Map<string, AbortController>();
  readonly #uploads = new Map<string, Readable>();
  readonly #awaited = new Map<string, () => void>();

  constructor(builds: Builds, clock: Clock) {
    this.#builds = builds;
    this.#clock = clock;
  }

  /** Ends a build that is under way. */
  cancel(buildId: string): void {
    this.#running.get(buildId)?.abort(new DrydockError('ERR_CANCELED', 'context canceled'));
  }

  /** Gives a build its context, and resolves when that was read. @throws ERR_BAD_PARAMETER when no build wants it */
  async upload(buildId: string, context: Readable): Promise<void> {
    this.#uploads.set(buildId, context);
    this.#awaited.get(buildId)?.();
    const timer = this.#clock.arm(this.#clock.now() + MEETING_MS_MAX, () => {
      if (this.#uploads.delete(buildId))
        context.destroy(new DrydockError('ERR_BAD_PARAMETER', 'no build waits for this context'));
    });
    await finished(context, { writable: false }).finally(() => timer.cancel());
  }

  async #uploaded(buildId: string): Promise<Readable> {
    for (let tries = 0; ; tries++) {
      const context = this.#uploads.get(buildId);
      if (this.#uploads.delete(buildId)) return context!;
      if (tries > 0) throw new DrydockError('ERR_BUILD', 'timeout while waiting for the build context');
      await new Promise<void>((resolve) => {
        const timer = this.#clock.arm(this.#clock.now() + MEETING_MS_MAX, resolve);
        this.#awaited.set(buildId, () => {
          timer.cancel();
          resolve();
        });
      });
      this.#awaited.delete(buildId);
    }
  }

  /** Builds, telling of it by `progress`. Returns the image's id. @throws DrydockError */
  async build(request: SessionBuildRequest): Promise<string> {
    const { buildId, options, runner, progress, sessionId } = request;
    const canceller = new AbortController();
    const signal = AbortSignal.any([request.signal, canceller.signal]);
    this.#running.set(buildId, canceller);
    const trace = new Trace(this.#clock, buildId, (bytes) =>
      progress({ id: 'moby.buildkit.trace', aux: Buffer.from(bytes).toString('base64') }),
    );
    const steps = new Steps(trace);
    try {
      const session = await this.sessions.get(sessionId, signal);
      const id = await this.#builds.build({
        options: { ...options, quiet: true, removeContainers: true, forceRemove: true },
        source: (scratchPath) => this.#source(request, session, trace, scratchPath, signal),
        runner: {
          start: (run, output) =>
            runner.start(run, (text) => {
              steps.current?.log(text);
              output(text);
            }),
        },
        credentialsFor: (domain) => credentialsOfSession(session, domain, signal),
        progress: (line) => steps.current?.status(line),
        observer: steps,
        signal,
      });
      await trace.run('exporting to image', async (step) => {
        step.status({ status: `writing image ${id}` });
        for (const name of options.tags) step.status({ status: `naming to ${name}` });
      });
      progress(options.quiet ? { stream: `${id}\n` } : { id: 'moby.image.id', aux: { ID: id } });
      return id;
    } catch (reason) {
      const error = canceller.signal.aborted ? (canceller.signal.reason as Error) : inBuildKitsWords(reason);
      steps.fail(error);
      throw error;
    } finally {
      if (this.#running.get(buildId) === canceller) this.#running.delete(buildId);
    }
  }

  async #source(
    request: SessionBuildRequest,
    session: Session,
    trace: Trace,
    scratchPath: string,
    signal: AbortSignal,
  ): Promise<BuildSource> {
    const { dockerfile, fetched, isUploaded, buildId } = request;
    if (fetched || isUploaded)
      return trace.run('[internal] load remote build context', async () => {
        const context = fetched ?? (await this.#uploaded(buildId));
        return checkSyntax(await this.#builds.receive(context, dockerfile, scratchPath));
      });
    const fetchInto = async (name: string, folder: FolderRequest): Promise<string> => {
      const archivePath = join(scratchPath, `${name}.tar`);
      await fetchFolder(session, folder, archivePath, signal);
      return this.#builds.unpack(archivePath, join(scratchPath, name));
    };
    const ownIgnore = `${dockerfile}.dockerignore`;
    const definition = await trace.run(`[internal] load build definition from ${dockerfile}`, async () => {
      const followPaths = [dockerfile, ownIgnore];
      const folder = await fetchInto('definition', { name: 'dockerfile', followPaths });
      const text = await textOf(join(folder, dockerfile));
      if (text === undefined)
        throw new DrydockError(
          'ERR_BUILD',
          `failed to read dockerfile: open ${dockerfile}: no such file or directory`,
        );
      return { text, ignore: await textOf(join(folder, ownIgnore)) };
    });
    const ignore = await trace.run('[internal] load .dockerignore', async () => {
      if (definition.ignore !== undefined) return definition.ignore;
      const folder = await fetchInto('ignore', { name: 'context', followPaths: ['.dockerignore'] });
      return (await textOf(join(folder, '.dockerignore'))) ?? '';
    });
    const contextPath = await trace.run('[internal] load build context', () =>
      fetchInto('context', { name: 'context', excludes: ignorePatterns(ignore) }),
    );
    return checkSyntax({ contextPath, dockerfile: definition.text });
  }
}

/** The text of a file that the client may not have. Its folder was unpacked for nothing else. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Refuses another language than the one that is built in. @throws ERR_BAD_DOCKERFILE */
function checkSyntax(source: BuildSource): BuildSource {
  const { syntax } = parseDockerfile(source.dockerfile);
  if (syntax !== undefined && !SYNTAX.test(syntax))
    throw new DrydockError(
      'ERR_BAD_DOCKERFILE',
      `the frontend ${syntax} can't be run: only docker/dockerfile:1 is built in. Take the line # syntax= out`,
    );
  return source;
}

/** BuildKit says of a failed command what it was; clients print just that. */
function inBuildKitsWords(error: unknown): Error {
  if (error instanceof BuildRunError)
    return new DrydockError(
      'ERR_BUILD',
      `process ${JSON.stringify(error.command.join(' '))} did not complete successfully: exit code: ${error.exitCode}`,
    );
  return error instanceof Error ? error : new Error(String(error));
}

/** The builder's steps as vertices. */
class Steps implements BuildObserver {
  readonly #trace: Trace;
  #isCached = false;
  current: Step | undefined;

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  begin({ name, original }: Parameters<BuildObserver['begin']>[0], index: number, total: number): void {
    this.#isCached = false;
    this.current = SHOWN.has(name) ? this.#trace.begin(`[${index + 1}/${total}] ${original}`) : undefined;
  }

  cached(): void {
    this.#isCached = true;
  }

  end(): void {
    this.current?.end({ cached: this.#isCached });
    this.current = undefined;
  }

  /** The step under way is the one that failed. */
  fail(error: Error): void {
    this.current?.end({ error: error.message });
    this.current = undefined;
  }
}
