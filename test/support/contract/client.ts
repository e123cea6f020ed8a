/** Calls endpoints of one API version and holds every answer against the contract. */
import { request } from 'node:http';
import type { Answer, Checker } from './contract.ts';

/** A query with a filter that no endpoint knows. */
export const REFUSED_FILTER: { filters: string } = { filters: '{"no-such":["x"]}' };

/** One call. */
export interface CallOptions {
  /** Values of the path's parameters, in order. */
  path?: string[];
  query?: Record<string, string>;
  /** JSON, or bytes of another type. */
  body?: object | Buffer;
  headers?: Record<string, string>;
  /** The status that must come; 200 unless told. */
  status?: number;
  /** The body is a line of JSON after another, each of this type of the contract; 'any' where it names none. */
  lines?: true;
  /** Ends the request after the first bytes of its body, since it would last. */
  first?: true;
}

/** An answer with its JSON. */
export interface CallAnswer extends Answer {
  // biome-ignore lint/suspicious/noExplicitAny: what comes is what is to be proved
  json: any;
}

/** Where a description and every dockerd differ: clients follow dockerd. */
export interface Deviation {
  operation: RegExp;
  fault: RegExp;
}

export class ContractClient {
  /** What was wrong. */
  readonly faults: string[] = [];
  /** Statuses that were seen, by operation. */
  readonly seen: Map<string, Set<number>> = new Map();
  readonly checker: Checker;
  readonly socketPath: string;
  readonly #deviations: readonly Deviation[];

  constructor(socketPath: string, checker: Checker, deviations: readonly Deviation[]) {
    this.socketPath = socketPath;
    this.checker = checker;
    this.#deviations = deviations;
  }

  /** Minor version that is spoken. */
  get minor(): number {
    return this.checker.contract.minor;
  }

  /** Calls `GET /containers/{id}/json`. @throws Error for another status than the expected one */
  async call(operation: string, options: CallOptions = {}): Promise<CallAnswer> {
    const answer = await this.#send(operation, options);
    const wanted = options.status ?? 200;
    if (answer.status !== wanted)
      throw new Error(`${operation}: status ${answer.status} instead of ${wanted}: ${answer.body}`);
    return this.record(operation, answer, options);
  }

  /** Judges an answer that was had in another way. */
  record(operation: string, answer: Answer, options: CallOptions = {}): CallAnswer {
    this.seen.set(operation, (this.seen.get(operation) ?? new Set()).add(answer.status));
    const made: CallAnswer = { ...answer, json: undefined };
    for (const fault of this.#judge(operation, made, options)) {
      const text = `${operation} ${answer.status} ${fault}`;
      if (this.#deviations.some((d) => d.operation.test(operation) && d.fault.test(fault))) continue;
      if (!this.faults.includes(text)) this.faults.push(text);
    }
    return made;
  }

  *#judge(operation: string, answer: CallAnswer, options: CallOptions): Generator<string> {
    const type = String(answer.headers['content-type'] ?? '');
    const known = this.checker.contract.operations.get(operation);
    // An endpoint may be newer than the version that is asked for: dockerd has it all the same.
    if (known && !known.responses.has(answer.status)) yield `status ${answer.status}: is not documented`;
    // A stream's head is written without them, by dockerd too.
    if (!type.startsWith('application/vnd.docker.')) yield* headerFaults(answer);
    if (answer.status >= 400) {
      yield* this.#errorFaults(operation, answer);
      return;
    }
    if (answer.status === 101 || options.first) return;
    const schema = known?.responses.get(answer.status);
    if (answer.status === 204 || answer.status === 304) {
      if (answer.body.length > 0) yield 'body: must be empty';
      return;
    }
    if (!type.startsWith('application/json')) {
      if (schema && schema.type !== 'string') yield `content-type: ${type}`;
      return;
    }
    if (type !== 'application/json') yield `content-type: ${type}`;
    const text = answer.body.toString();
    const values: unknown[] = options.lines
      ? text
          .split(/\r?\n/)
          .filter(Boolean)
          .map((line) => JSON.parse(line))
      : [JSON.parse(text)];
    answer.json = options.lines ? values : values[0];
    if (schema) for (const value of values) yield* this.checker.faultsOf(operation, answer.status, value);
    else if (known && !options.lines) yield 'body: is not documented';
  }

  *#errorFaults(operation: string, answer: CallAnswer): Generator<string> {
    if (operation.startsWith('HEAD ')) return;
    if (answer.headers['content-type'] !== 'application/json')
      yield `content-type of an error: ${answer.headers['content-type']}`;
    answer.json = JSON.parse(answer.body.toString());
    const { message, ...others } = answer.json;
    if (typeof message !== 'string' || message === '' || Object.keys(others).length > 0)
      yield `body of an error: ${answer.body}`;
  }

  /** Where a call goes. */
  target(operation: string, options: CallOptions): { method: string; url: string } {
    const [method = '', template = ''] = operation.split(' ');
    const values = [...(options.path ?? [])];
    const path = template.replaceAll(/\{\w+\}/g, () => values.shift()!);
    const query = new URLSearchParams(options.query).toString();
    return { method, url: `/v1.${this.minor}${path}${query && `?${query}`}` };
  }

  #send(operation: string, options: CallOptions): Promise<Answer> {
    const { method, url } = this.target(operation, options);
    const { body } = options;
    const bytes = body === undefined || Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    const type = Buffer.isBuffer(body) ? 'application/x-tar' : 'application/json';
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath: this.socketPath,
          method,
          path: url,
          headers: {
            ...(bytes && { 'content-type': type, 'content-length': bytes.length }),
            ...options.headers,
          },
        },
        (response) => {
          const parts: Buffer[] = [];
          const done = (): void =>
            resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(parts) });
          response.on('data', (part: Buffer) => {
            parts.push(part);
            if (!options.first) return;
            done();
            outgoing.destroy();
          });
          response.on('end', done);
          response.on('error', reject);
        },
      );
      outgoing.on('error', (error) => {
        if (!options.first) reject(error);
      });
      outgoing.end(bytes);
    });
  }
}

/** Headers of every answer of a dockerd (moby, api/server/middleware/version.go). */
function* headerFaults({ headers, status }: Answer): Generator<string> {
  if (status === 101) return;
  for (const [name, form] of [
    ['api-version', /^1\.\d+$/],
    ['docker-experimental', /^(true|false)$/],
    ['ostype', /^linux$/],
    ['server', /^\w+\/\S+ \(linux\)$/],
  ] as const)
    if (!form.test(String(headers[name]))) yield `header ${name}: ${headers[name]}`;
}
