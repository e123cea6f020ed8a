/** Two engines' answers to one request, made comparable and compared. */
import http from 'node:http';
import type { Step } from './requests.ts';

/** An answer as it is compared. */
export interface Answer {
  status: number;
  headers: Record<string, string>;
  /** The JSON, each line of several, or the text. */
  body: unknown;
}

/** A difference between two answers. */
export interface Difference {
  /** The request, in words. */
  request: string;
  /** Where in the answer: `status`, a header's name, or a path in the body. */
  at: string;
  ours: unknown;
  theirs: unknown;
}

/** The newest version of the API that Debian's dockerd speaks. */
const MINOR_MAX = 41;

/** No request of the tables takes long: an engine that doesn't answer one has another opinion of it. */
const ANSWER_MS_MAX = 10_000;

/** Headers of dockerd that clients read. */
const HEADERS = ['content-type', 'x-docker-container-path-stat'];

/** Puts one request to the engine behind a socket. */
export function ask(socketPath: string, step: Step): Promise<Answer> {
  const { method, path, body, minor = MINOR_MAX } = step;
  const isText = typeof body === 'string';
  const bytes =
    body === undefined || Buffer.isBuffer(body) ? body : Buffer.from(isText ? body : JSON.stringify(body));
  const type = Buffer.isBuffer(body) ? 'application/x-tar' : 'application/json';
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        socketPath,
        method,
        path: `/v1.${minor}${path}`,
        timeout: ANSWER_MS_MAX,
        headers: {
          ...(bytes && { 'Content-Type': type, 'Content-Length': bytes.length }),
          ...step.headers,
        },
      },
      (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('error', reject);
        response.on('end', () => {
          const sent = HEADERS.filter((name) => name in response.headers);
          resolve({
            status: response.statusCode!,
            headers: Object.fromEntries(sent.map((name) => [name, String(response.headers[name])])),
            body: parse(Buffer.concat(parts), String(response.headers['content-type'])),
          });
        });
      },
    );
    request.on('timeout', () => request.destroy(new Error(`${method} ${path} is not answered`)));
    request.on('error', reject);
    request.end(bytes);
  });
}

function parse(bytes: Buffer, type: string): unknown {
  const text = bytes.toString('latin1');
  if (!type.startsWith('application/json') || text === '') return text;
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const values = lines.map((line) => JSON.parse(line) as unknown);
  return values.length === 1 ? values[0] : values;
}

/** A text without what every engine has of its own: ids, times, hardware addresses, its folders. */
function common(text: string): string {
  return text
    .replace(/\/\S*\/(containers|volumes|netns|overlay2)\//g, '/ROOT/$1/')
    .replace(/\b[0-9a-f]{64}\b/g, 'ID')
    .replace(/\b[0-9a-f]{12}\b/g, 'ID')
    .replace(/(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)/g, (stamp, year) =>
      year === '0001' ? stamp : 'TIME',
    )
    .replace(/\b02:42(:[0-9a-f]{2}){4}\b/g, 'MAC');
}

/** How two bodies differ, by path. Arrays are compared item by item as far as both go. */
function* differences(ours: unknown, theirs: unknown, at: string): Generator<[string, unknown, unknown]> {
  if (typeof ours === 'string' && typeof theirs === 'string') {
    if (common(ours) !== common(theirs)) yield [at, ours, theirs];
  } else if (isObject(ours) && isObject(theirs)) {
    const [left, right] = [byCommonKey(ours), byCommonKey(theirs)];
    for (const key of new Set([...left.keys(), ...right.keys()]))
      yield* differences(left.get(key), right.get(key), `${at}.${key}`);
  } else if (Array.isArray(ours) && Array.isArray(theirs)) {
    if (ours.length !== theirs.length) yield [`${at}.length`, ours, theirs];
    for (let i = 0; i < Math.min(ours.length, theirs.length); i++)
      yield* differences(ours[i], theirs[i], `${at}.${i}`);
  } else if (ours !== theirs) yield [at, ours, theirs];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function byCommonKey(value: Record<string, unknown>): Map<string, unknown> {
  return new Map(Object.entries(value).map(([key, entry]) => [common(key), entry]));
}

/** All differences between two answers to one request; of answers with different statuses only that and the texts. */
export function compare(step: Step, ours: Answer, theirs: Answer): Difference[] {
  const { method, path, minor, body } = step;
  const shown = body === undefined || Buffer.isBuffer(body) ? '' : ` ${JSON.stringify(body)}`;
  const request = `${method} ${path}${minor ? ` (1.${minor})` : ''}${shown}`;
  if (ours.status !== theirs.status)
    return [{ request, at: 'status', ours: [ours.status, ours.body], theirs: [theirs.status, theirs.body] }];
  const found = [...differences(ours.body, theirs.body, '')];
  for (const name of HEADERS)
    if (ours.headers[name] !== theirs.headers[name])
      found.push([name, ours.headers[name], theirs.headers[name]]);
  return found.map(([at, left, right]) => ({ request, at, ours: left, theirs: right }));
}
