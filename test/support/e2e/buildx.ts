/**
 * A client of BuildKit's control API that does what buildx does with its docker driver: the same calls in the same order,
 * their messages written field by field from the .proto files, with a codec that is not the daemon's.
 */
import { randomUUID } from 'node:crypto';
import { request } from 'node:http';
import {
  type ClientHttp2Session,
  connect,
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { Duplex } from 'node:stream';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

type Value = string | number | Uint8Array;

/** A message: its fields by number, in order. */
export function pb(...fields: [id: number, value: Value][]): Uint8Array {
  const writer = new BinaryWriter();
  for (const [id, value] of fields)
    if (typeof value === 'number') writer.tag(id, WireType.Varint).int64(value);
    else if (typeof value === 'string') writer.tag(id, WireType.LengthDelimited).string(value);
    else writer.tag(id, WireType.LengthDelimited).bytes(value);
  return writer.finish();
}

/** Entries of a map<string, string>. */
const entries = (id: number, map: Record<string, string>): [number, Uint8Array][] =>
  Object.entries(map).map(([key, value]) => [id, pb([1, key], [2, value])]);

/** The fields of a message: numbers, or bytes of whatever it is. */
export function fieldsOf(bytes: Uint8Array): Map<number, (number | Buffer)[]> {
  const found = new Map<number, (number | Buffer)[]>();
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [id, wire] = reader.tag();
    const value = wire === WireType.Varint ? Number(reader.int64()) : Buffer.from(reader.bytes());
    found.set(id, [...(found.get(id) ?? []), value]);
  }
  return found;
}

const bytesOf = (fields: Map<number, (number | Buffer)[]>, id: number): Buffer[] =>
  (fields.get(id) ?? []).map((value) => value as Buffer);
export const textOf = (fields: Map<number, (number | Buffer)[]>, id: number): string =>
  String(fields.get(id)?.[0] ?? '');
const mapOf = (fields: Map<number, (number | Buffer)[]>, id: number): Record<string, string> =>
  Object.fromEntries(
    bytesOf(fields, id).map((entry) => [textOf(fieldsOf(entry), 1), textOf(fieldsOf(entry), 2)]),
  );

function frame(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

async function* frames(stream: Duplex): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0);
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    rest = Buffer.concat([rest, chunk as Buffer]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      yield rest.subarray(5, end);
      rest = rest.subarray(end);
    }
  }
}

/** The daemon's connection for another protocol. */
function upgrade(
  socketPath: string,
  path: string,
  headers: Record<string, string | string[]>,
): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const outgoing = request({
      socketPath,
      path,
      method: 'POST',
      headers: { ...headers, Connection: 'Upgrade', Upgrade: 'h2c' },
    });
    outgoing.on('upgrade', (_response, socket, head) => {
      // The daemon may speak first.
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    outgoing.on('response', (response) => reject(new Error(`${path}: ${response.statusCode}`)));
    outgoing.on('error', reject);
    outgoing.end();
  });
}

/** What the client of a build has. */
export interface Offers {
  /** Folders by name, with files by path; a path that ends in a slash is a folder. Parents come before what is in them. */
  folders: Record<string, Record<string, string>>;
  secrets?: Record<string, string>;
  /** Answers what a step says to the ssh agent of this name. */
  agents?: Record<string, (said: string) => string>;
}

/** A build to ask for. */
export interface BuildRequest extends Offers {
  attributes?: Record<string, string>;
  exporter?: { type: string; attributes: Record<string, string> };
  entitlements?: string[];
  cacheExports?: string[];
  /** The session goes through the control connection, as of newer clients. */
  inBand?: boolean;
  /** Looks into the result by calls of the gateway: ReadFile, ReadDir, StatFile. */
  inspect?: (call: GatewayCall, ref: string) => Promise<void>;
  signal?: AbortSignal;
}

/** Calls a method of the gateway. @throws StatusError */
export type GatewayCall = (method: string, message: Uint8Array) => Promise<Map<number, (number | Buffer)[]>>;

/** What came of a build. */
export interface BuildAnswer {
  /** What the exporter says. */
  response: Record<string, string>;
  /** Steps with their errors, and all output. */
  steps: Map<string, { cached: boolean; error: string }>;
  output: string;
  /** What was sent to the client. */
  received: Buffer;
}

/** A status other than OK. */
export class StatusError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const METHODS = [
  '/moby.filesync.v1.FileSync/DiffCopy',
  '/moby.filesync.v1.FileSend/DiffCopy',
  '/moby.buildkit.secrets.v1.Secrets/GetSecret',
  '/moby.sshforward.v1.SSH/CheckAgent',
  '/moby.sshforward.v1.SSH/ForwardAgent',
];

/** See the module's head. */
export class Buildx {
  readonly #socketPath: string;
  #session!: ClientHttp2Session;

  private constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  static async connect(socketPath: string): Promise<Buildx> {
    const client = new Buildx(socketPath);
    const socket = await upgrade(socketPath, '/grpc', {});
    client.#session = connect('http://localhost', { createConnection: () => socket });
    client.#session.on('error', () => {});
    return client;
  }

  close(): void {
    this.#session.destroy();
  }

  #open(
    path: string,
    headers: Record<string, string | string[]> = {},
  ): ReturnType<ClientHttp2Session['request']> {
    return this.#session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
  }

  /** Calls a method, and gives its messages. @throws StatusError */
  async *call(
    path: string,
    message: Uint8Array = pb(),
    { headers = {}, signal }: { headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): AsyncGenerator<Buffer> {
    const stream = this.#open(path, headers);
    const trailers = new Promise<IncomingHttpHeaders>((resolve) => {
      stream.once('trailers', resolve);
      stream.once('close', () => resolve({ 'grpc-status': '1', 'grpc-message': 'the stream was closed' }));
    });
    stream.on('error', () => {});
    signal?.addEventListener('abort', () => stream.close(8));
    stream.end(frame(message));
    try {
      yield* frames(stream);
    } catch {
      // told by the trailers
    }
    const { 'grpc-status': status, 'grpc-message': text = '' } = await trailers;
    if (status !== '0') throw new StatusError(Number(status), decodeURIComponent(String(text)));
  }

  async unary(
    path: string,
    message?: Uint8Array,
    more?: Parameters<Buildx['call']>[2],
  ): Promise<Map<number, (number | Buffer)[]>> {
    let answer: Buffer | undefined;
    for await (const each of this.call(path, message, more)) answer = each;
    return fieldsOf(answer ?? Buffer.alloc(0));
  }

  /** Builds a Dockerfile as buildx does. @throws StatusError */
  async build(build: BuildRequest): Promise<BuildAnswer> {
    const ref = randomUUID();
    const sessionId = randomUUID();
    const attributes = { filename: 'Dockerfile', ...build.attributes };
    const { type, attributes: options } = build.exporter ?? { type: 'moby', attributes: {} };
    const answer: BuildAnswer = { response: {}, steps: new Map(), output: '', received: Buffer.alloc(0) };
    const headers = { 'buildkit-controlapi-buildid': ref };
    const session = await this.#serveSession(sessionId, build, answer);
    await this.unary('/moby.buildkit.v1.Control/ListWorkers');
    const solve = pb(
      ...([
        [1, ref],
        [3, type],
        [5, sessionId],
      ] as [number, Value][]),
      ...entries(4, options),
      ...entries(7, attributes),
      [8, pb(...(build.cacheExports ?? []).map((each): [number, Value] => [4, pb([1, each])]))],
      ...(build.entitlements ?? []).map((each): [number, Value] => [9, each]),
    );
    const status = (async (): Promise<void> => {
      for await (const message of this.call('/moby.buildkit.v1.Control/Status', pb([1, ref])))
        addStatus(answer, message);
    })();
    // It may fail long before it is waited for.
    status.catch(() => {});
    try {
      const solving = this.unary('/moby.buildkit.v1.Control/Solve', solve, {
        ...(build.signal && { signal: build.signal }),
      });
      const frontend = this.#frontend(headers, attributes, build.inspect);
      const [solved, ran] = await Promise.allSettled([solving, frontend]);
      // Solve says why; what the gateway hears of it then is of no interest.
      if (solved.status === 'rejected') throw solved.reason;
      if (ran.status === 'rejected') throw ran.reason;
      answer.response = mapOf(solved.value, 1);
      await status;
      return answer;
    } finally {
      await status.catch(() => {});
      session.destroy();
    }
  }

  /** The client's part of the build: it asks for the Dockerfile's result, and gives it back. */
  async #frontend(
    headers: Record<string, string>,
    attributes: Record<string, string>,
    inspect: BuildRequest['inspect'],
  ): Promise<void> {
    const call: GatewayCall = (method, message) =>
      this.unary(`/moby.buildkit.v1.frontend.LLBBridge/${method}`, message, { headers });
    const caps = await call('Ping', pb());
    if (bytesOf(caps, 1).length === 0) throw new Error('the gateway has no abilities');
    const solve = pb([2, 'dockerfile.v0'], ...entries(3, attributes), [5, 1], [6, 1]);
    try {
      const result = bytesOf(await call('Solve', solve), 3)[0]!;
      const ref = textOf(fieldsOf(bytesOf(fieldsOf(result), 3)[0]!), 1);
      await inspect?.(call, ref);
      await call('Return', pb([1, result]));
    } catch (error) {
      const { status, message } = error as StatusError;
      await call('Return', pb([2, pb([1, status], [2, message])]));
    }
  }

  async #serveSession(id: string, offers: BuildRequest, answer: BuildAnswer): Promise<Duplex> {
    const headers = {
      'x-docker-expose-session-uuid': id,
      'x-docker-expose-session-name': 'test',
      'x-docker-expose-session-grpc-method': METHODS,
    };
    const socket = offers.inBand
      ? this.#inBand(headers)
      : await upgrade(this.#socketPath, '/session', headers);
    const server = createServer();
    server.on('session', (session) => session.on('error', () => {}));
    server.on('stream', (stream, incoming) => void serveCall(stream, incoming, offers, answer));
    server.emit('connection', socket);
    return socket;
  }

  /** A connection inside of a call: Control/Session carries its bytes in messages. */
  #inBand(headers: Record<string, string | string[]>): Duplex {
    const stream = this.#open('/moby.buildkit.v1.Control/Session', headers);
    stream.on('error', () => {});
    const incoming = frames(stream);
    return new Duplex({
      read() {
        incoming.next().then(
          ({ value, done }) =>
            this.push(done ? null : (bytesOf(fieldsOf(value as Buffer), 1)[0] ?? Buffer.alloc(0))),
          () => this.destroy(),
        );
      },
      write: (chunk: Buffer, _encoding, done) => void stream.write(frame(pb([1, chunk])), () => done()),
      destroy(error, done) {
        stream.close(8);
        done(error);
      },
    });
  }
}

function addStatus(answer: BuildAnswer, message: Buffer): void {
  const fields = fieldsOf(message);
  for (const vertex of bytesOf(fields, 1).map(fieldsOf))
    answer.steps.set(textOf(vertex, 3), { cached: vertex.get(4)?.[0] === 1, error: textOf(vertex, 7) });
  for (const log of bytesOf(fields, 3).map(fieldsOf)) answer.output += textOf(log, 4);
}

async function serveCall(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  offers: BuildRequest,
  answer: BuildAnswer,
): Promise<void> {
  stream.on('error', () => {});
  let status = { 'grpc-status': '0', 'grpc-message': '' };
  stream.once('wantTrailers', () => !stream.destroyed && stream.sendTrailers(status));
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  try {
    await METHOD_OF[String(headers[':path'])]!(stream, headers, offers, answer);
  } catch (error) {
    status = { 'grpc-status': '5', 'grpc-message': (error as Error).message };
  }
  stream.end();
}

type Serve = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  offers: BuildRequest,
  answer: BuildAnswer,
) => Promise<void>;

const METHOD_OF: Record<string, Serve> = {
  [METHODS[0]!]: serveFolder,
  async [METHODS[1]!](stream, _headers, _offers, answer) {
    for await (const message of frames(stream))
      answer.received = Buffer.concat([answer.received, ...bytesOf(fieldsOf(message), 1)]);
  },
  async [METHODS[2]!](stream, _headers, { secrets = {} }) {
    for await (const message of frames(stream)) {
      const id = textOf(fieldsOf(message), 1);
      if (secrets[id] === undefined) throw new Error(`secret ${id} not found`);
      stream.write(frame(pb([1, secrets[id]])));
      return;
    }
  },
  async [METHODS[3]!](stream, _headers, { agents = {} }) {
    for await (const message of frames(stream)) {
      const id = textOf(fieldsOf(message), 1);
      if (!agents[id]) throw new Error(`unset ssh forward key ${id}`);
      stream.write(frame(pb()));
      return;
    }
  },
  async [METHODS[4]!](stream, headers, { agents = {} }) {
    const agent = agents[String(headers['buildkit.ssh.id'])]!;
    for await (const message of frames(stream))
      stream.write(frame(pb([1, agent(textOf(fieldsOf(message), 1))])));
  },
};

/** moby.filesync.v1.FileSync/DiffCopy: descriptions of all files, then those that are asked for. */
async function serveFolder(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  { folders }: BuildRequest,
): Promise<void> {
  const name = String(headers['dir-name']);
  const folder = folders[name];
  if (!folder) throw new Error(`no access allowed to dir ${JSON.stringify(name)}`);
  const list = (header: string): string[] =>
    headers[header] === undefined ? [] : String(headers[header]).split(/,\s*/);
  const wanted = list('followpaths');
  const excluded = list('exclude-patterns');
  const files = Object.entries(folder).filter(
    ([path]) => (wanted.length === 0 || wanted.includes(path)) && !excluded.includes(path),
  );
  for (const [path, content] of files) {
    const isFolder = path.endsWith('/');
    const mode = isFolder ? 2 ** 31 + 0o755 : 0o644;
    const stat = pb(
      [1, path.replace(/\/$/, '')],
      [2, mode],
      ...(isFolder ? [] : [[5, Buffer.byteLength(content)] as [number, Value]]),
    );
    stream.write(frame(pb([2, stat])));
  }
  stream.write(frame(pb()));
  for await (const message of frames(stream)) {
    const fields = fieldsOf(message);
    const [type = 0] = fields.get(1) ?? [];
    const id = Number(fields.get(3)?.[0] ?? 0);
    if (type === 3) {
      stream.write(frame(pb([1, 3])));
      return;
    }
    stream.write(frame(pb([1, 2], [3, id], [4, Buffer.from(files[id]![1])])));
    stream.write(frame(pb([1, 2], [3, id])));
  }
}
