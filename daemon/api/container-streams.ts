/** /containers/ID/{attach,logs,resize,stats} and /exec: what carries a process's streams. */
import type { Writable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { DrydockError, errorMessage } from '#common/errors';
import { attach, frameHeader, parseDetachKeys } from '../container/attach.ts';
import type { Container } from '../container/container.ts';
import type { ExecInstance, ExecRequest } from '../container/exec.ts';
import { permit } from '../container/lifecycle.ts';
import { type LogLine, type LogQuery, readLog } from '../container/log-reader.ts';
import { statsView } from '../container/stats.ts';
import { STATS_INTERVAL_MS } from '../limits.ts';
import { nanoToRfc3339, rfc3339ToNano } from '../stamps.ts';
import { containerOf } from './containers.ts';
import type { ApiContext } from './context.ts';
import { badParameter } from './errors.ts';
import { hijack, hijackWebSocket } from './hijack.ts';
import { flag, jsonBody, optionalJsonBody, text, timestampNano } from './query.ts';
import { createExecBody, startExecBody } from './schema.ts';
import { apiVersion } from './server.ts';
import { drained, JsonLines, openStream } from './stream.ts';

const RAW = 'application/vnd.docker.raw-stream';
const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';

/** Registers the routes. */
export function containerStreamRoutes(app: FastifyInstance, context: ApiContext): void {
  app.post('/containers/:id/attach', (request, reply) => attachRoute(context, request, reply, false));
  app.get('/containers/:id/attach/ws', (request, reply) => attachRoute(context, request, reply, true));
  app.get('/containers/:id/logs', (request, reply) => logs(context, request, reply));
  app.post('/containers/:id/resize', async (request, reply) => {
    const { h, w } = size(request);
    const container = containerOf(context, request);
    if (!container.process)
      throw new DrydockError('ERR_CONFLICT', `cannot resize a stopped container: ${container.id}`);
    if (h > 0 && w > 0) {
      container.process.resize(h, w);
      context.containers.supervisor.event(container, 'resize', { height: String(h), width: String(w) });
    }
    return reply.code(200).send();
  });
  app.get('/containers/:id/stats', (request, reply) => stats(context, request, reply));
  execRoutes(app, context);
}

function size(request: FastifyRequest): { h: number; w: number } {
  const cells = (name: string): number => {
    const value = text(request, name);
    if (!/^\d+$/.test(value))
      throw badParameter(
        `invalid resize ${name === 'h' ? 'height' : 'width'} ${JSON.stringify(value)}: invalid syntax`,
      );
    return Number(value);
  };
  return { h: cells('h'), w: cells('w') };
}

/** Only a client that upgrades is told of multiplexed frames by their own type (moby: since 1.42). */
function streamType(request: FastifyRequest, raw: boolean): string {
  return !raw && apiVersion(request) >= 42 && request.headers.upgrade !== undefined ? MULTIPLEXED : RAW;
}

/** Since 1.28 a WebSocket's frames are binary (moby, api/server/router/container/container_routes.go). */
const BINARY_FRAMES_MINOR = 28;

/** Over a WebSocket both outputs are one stream without docker's frames. */
async function attachRoute(
  context: ApiContext,
  request: FastifyRequest,
  reply: FastifyReply,
  webSocket: boolean,
): Promise<void> {
  const container = containerOf(context, request);
  permit('attach', container.record.state.status, container.id, container.name);
  const detachKeys = parseDetachKeys(text(request, 'detachKeys'));
  const { config } = container.record;
  const terminal = config.Tty === true;
  const framed = !terminal && !webSocket;
  const { input, output } = webSocket
    ? hijackWebSocket(request, reply, apiVersion(request) < BINARY_FRAMES_MINOR)
    : hijack(request, reply, streamType(request, terminal));
  const streams = { stdout: flag(request, 'stdout'), stderr: flag(request, 'stderr') };
  const mark = container.log?.mark();
  const prologue = flag(request, 'logs') ? () => replay(container, output, framed, streams, mark) : undefined;
  const stdin = flag(request, 'stdin') && config.OpenStdin === true;
  // Without a stream there is nothing to wait for, nor an end of it.
  const isEmpty = !stdin && !streams.stdout && !streams.stderr;
  if (!flag(request, 'stream') || isEmpty) {
    await prologue?.();
    output.end();
    return;
  }
  context.containers.supervisor.event(container, 'attach');
  const why = await attach(container.io, {
    input,
    output,
    ...streams,
    stdin,
    terminal,
    framed,
    closeStdin: config.StdinOnce === true,
    detachKeys,
    ...(prologue && { prologue }),
  });
  if (why === 'detached') context.containers.supervisor.event(container, 'detach');
}

/** Writes what was logged before a client attached. */
async function replay(
  container: Container,
  output: Writable,
  framed: boolean,
  streams: { stdout: boolean; stderr: boolean },
  until: bigint | undefined,
): Promise<void> {
  if (!container.log) return;
  const query: LogQuery = {
    ...streams,
    tail: undefined,
    sinceNano: undefined,
    untilNano: until,
    follow: false,
    signal: new AbortController().signal,
  };
  for await (const batch of readLog(container.log, query))
    if (!output.write(encode(batch, framed, { timestamps: false, details: false }))) await drained(output);
}

/** `a=1,b=2`, sorted and escaped as moby does. */
function attributesText(attributes: Record<string, string>): string {
  return Object.entries(attributes)
    .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value)}`)
    .sort()
    .join(',');
}

/** A batch of log lines as the client gets them. */
function encode(
  lines: LogLine[],
  framed: boolean,
  { timestamps, details }: { timestamps: boolean; details: boolean },
): Buffer {
  const parts: Buffer[] = [];
  for (const line of lines) {
    const stamp = timestamps ? `${nanoToRfc3339(rfc3339ToNano(line.time))} ` : '';
    const extra = details ? `${attributesText(line.attributes)} ` : '';
    const data = Buffer.from(stamp + extra + line.text);
    if (framed) parts.push(frameHeader(line.stream === 'stdout' ? 1 : 2, data.length));
    parts.push(data);
  }
  return Buffer.concat(parts);
}

async function logs(context: ApiContext, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const [stdout, stderr] = [flag(request, 'stdout'), flag(request, 'stderr')];
  if (!stdout && !stderr) throw badParameter('Bad parameters: you must choose at least one stream');
  const container = containerOf(context, request);
  const nowMs = context.clock.wallMs();
  const bound = (name: string): bigint | undefined => {
    const value = text(request, name);
    return value === '' || value === '0' ? undefined : timestampNano(value, nowMs);
  };
  const tail = text(request, 'tail');
  const gone = new AbortController();
  const query: LogQuery = {
    stdout,
    stderr,
    tail: /^\d+$/.test(tail) ? Number(tail) : undefined,
    sinceNano: bound('since'),
    untilNano: bound('until'),
    follow: flag(request, 'follow'),
    signal: gone.signal,
  };
  if (!container.log)
    throw new DrydockError('ERR_NOT_IMPLEMENTED', 'configured logging driver does not support reading');
  const terminal = container.record.config.Tty === true;
  const wish = { timestamps: flag(request, 'timestamps'), details: flag(request, 'details') };
  const stream = openStream(reply, !terminal && apiVersion(request) >= 42 ? MULTIPLEXED : RAW);
  stream.once('close', () => gone.abort());
  try {
    for await (const batch of readLog(container.log, query))
      if (!stream.write(encode(batch, !terminal, wish))) await drained(stream);
  } catch (error) {
    context.log.warn({ container: container.id, error }, 'container log could not be read');
  }
  stream.end();
}

async function stats(context: ApiContext, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const container = containerOf(context, request);
  const stream = flag(request, 'stream', true);
  const { clock } = context;
  let previous = await statsView(container, clock.wallMs(), undefined);
  if (!stream && flag(request, 'one-shot')) return reply.send(previous);
  const lines = new JsonLines(reply);
  // With a stream the first sample goes out at once; a single answer needs two samples for its CPU percentage.
  if (stream) await lines.write(previous);
  while (!lines.gone.aborted) {
    await new Promise<void>((resolve) => {
      const timer = clock.arm(clock.now() + STATS_INTERVAL_MS, resolve);
      lines.gone.addEventListener('abort', () => {
        timer.cancel();
        resolve();
      });
    });
    if (container.removed) break;
    previous = await statsView(container, clock.wallMs(), previous);
    await lines.write(previous);
    if (!stream) break;
  }
  lines.end();
}

function execRoutes(app: FastifyInstance, context: ApiContext): void {
  const { execs } = context;
  const instanceOf = (request: FastifyRequest): ExecInstance =>
    execs.get((request.params as { id: string }).id);
  app.post('/containers/:id/exec', { schema: { body: createExecBody } }, async (request, reply) => {
    const body: Partial<ExecRequest> = jsonBody(request);
    const { Cmd } = body;
    if (!Cmd?.length) throw badParameter('No exec command specified');
    // Before 1.42 the size came with the start alone.
    if (apiVersion(request) < 42) delete body.ConsoleSize;
    const instance = execs.create(containerOf(context, request), { ...body, Cmd });
    return reply.code(201).send({ Id: instance.id });
  });
  app.post('/exec/:id/start', { schema: { body: startExecBody } }, (request, reply) =>
    execStart(context, instanceOf(request), request, reply),
  );
  app.post('/exec/:id/resize', async (request, reply) => {
    const { h, w } = size(request);
    const instance = instanceOf(request);
    await execs.resize(instance, h, w);
    return reply.code(200).send();
  });
  app.get('/exec/:id/json', async (request) => execView(instanceOf(request)));
}

function execView(instance: ExecInstance): object {
  const { request } = instance;
  const [entrypoint = '', ...args] = request.Cmd;
  return {
    ID: instance.id,
    Running: instance.running,
    ExitCode: instance.exitCode,
    ProcessConfig: {
      tty: request.Tty === true,
      entrypoint,
      arguments: args,
      privileged: request.Privileged === true,
      ...(request.User && { user: request.User }),
    },
    OpenStdin: request.AttachStdin === true,
    OpenStderr: request.AttachStderr === true,
    OpenStdout: request.AttachStdout === true,
    CanRemove: !instance.running && instance.started,
    ContainerID: instance.container.id,
    DetachKeys: request.DetachKeys ?? '',
    Pid: instance.process?.pid ?? 0,
  };
}

interface ExecStartRequest {
  Detach?: boolean;
  Tty?: boolean;
  ConsoleSize?: [number, number];
}

async function execStart(
  context: ApiContext,
  instance: ExecInstance,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const body = (optionalJsonBody(request) ?? {}) as ExecStartRequest;
  const { execs } = context;
  const wish = instance.request;
  const detachKeys = parseDetachKeys(wish.DetachKeys ?? '');
  execs.checkStart(instance);
  if (body.Detach) {
    await execs.start(instance, undefined, body.ConsoleSize);
    return reply.code(200).send();
  }
  // Not whether the process has a terminal but what the start says decides about frames, as in moby.
  const framed = body.Tty !== true;
  const { input, output } = hijack(request, reply, streamType(request, !framed));
  try {
    await execs.start(
      instance,
      {
        input,
        output,
        stdin: wish.AttachStdin === true,
        stdout: wish.AttachStdout === true,
        stderr: wish.AttachStderr === true,
        framed,
        detachKeys,
      },
      body.ConsoleSize,
    );
  } catch (error) {
    // The status is out already, so the text goes where the process's output would have gone.
    const data = Buffer.from(`${errorMessage(error)}\r\n`);
    if (framed) output.write(frameHeader(1, data.length));
    output.end(data);
  }
}
