/**
 * `POST /build?version=2`: a build for a client that speaks BuildKit's protocol. Context, Dockerfile and logins are
 * fetched through the client's session, progress is a trace of vertices; what the instructions do is the same
 * {@link Builder}'s as for every other client.
 */
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Progress } from '../../image/store.ts';
import type { BuildOptions } from '../options.ts';
import type { StepRunner } from '../runner.ts';
import type { BuildSource, Builds } from '../service.ts';
import { checkSyntax, fetchSource, type SourceParts } from './context.ts';
import { exportResult, type OutputRequest } from './export.ts';
import { sessionStepClient } from './session-client.ts';
import { credentialsOfSession, Sessions } from './sessions.ts';
import { inBuildKitsWords, traceSteps } from './steps.ts';
import { Trace } from './trace.ts';

/** A context that is sent by a request of its own waits this long for its build, and the build for it. */
const MEETING_MS_MAX = 5_000;

/** A build as the client asks for it. */
export interface SessionBuildRequest {
  sessionId: string;
  /** By which it may be cancelled. */
  buildId: string;
  /** The context comes by {@link SessionBuilds.upload}. */
  isUploaded: boolean;
  /** The context's address, when it is not the client's folder. */
  remote: string | undefined;
  /** What to make of the result besides an image. */
  output: OutputRequest | undefined;
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
    try {
      const session = await this.sessions.get(sessionId, signal);
      const id = await this.#builds.build({
        options: { ...options, quiet: true, removeContainers: true, forceRemove: true },
        source: (scratchPath) =>
          this.#source(request, { builds: this.#builds, session, trace, scratchPath, signal }),
        runner,
        client: sessionStepClient(session),
        credentialsFor: (domain) => credentialsOfSession(session, domain, signal),
        progress: () => {},
        observer: traceSteps(trace),
        signal,
      });
      if (request.output)
        await exportResult(this.#builds, { imageId: id, output: request.output, session, trace, signal });
      else
        await trace.run('exporting to image', async (step) => {
          step.status({ status: `writing image ${id}` });
          for (const name of options.tags) step.status({ status: `naming to ${name}` });
        });
      progress(options.quiet ? { stream: `${id}\n` } : { id: 'moby.image.id', aux: { ID: id } });
      return id;
    } catch (reason) {
      throw canceller.signal.aborted ? (canceller.signal.reason as Error) : inBuildKitsWords(reason);
    } finally {
      if (this.#running.get(buildId) === canceller) this.#running.delete(buildId);
    }
  }

  async #source(
    { dockerfile, remote, isUploaded, buildId }: SessionBuildRequest,
    parts: SourceParts,
  ): Promise<BuildSource> {
    if (isUploaded)
      return parts.trace.run('[internal] load remote build context', async () => {
        const context = await this.#uploaded(buildId);
        return checkSyntax(
          await this.#builds.receive(context, dockerfile, parts.scratchPath, parts.signal),
          parts.trace,
        );
      });
    return fetchSource(parts, {
      filename: dockerfile,
      contextName: 'context',
      dockerfileName: 'dockerfile',
      remote,
      hasOwnDockerfile: false,
      subfolder: '',
    });
  }
}
