/** Sends what no HTTP client would, and reads what comes back without believing it. */
import { connect } from 'node:net';
import type { FuzzRequest } from './api-requests.ts';

/** What came back. */
export interface FuzzAnswer {
  /** Undefined when the connection was closed without an answer, or none came in time. */
  status: number | undefined;
  type: string;
  body: string;
  /** The daemon neither answered nor closed. */
  silent: boolean;
}

/** A stream goes on for ever: what came until it paused is looked at. */
const PAUSE_MS = 50;

/** The bytes of a request. Lengths are told rightly unless a header says otherwise. */
function emit({ method, target, headers, body }: FuzzRequest): Buffer {
  const bytes = Buffer.from(body ?? '', 'latin1');
  const told = headers.some(([name]) => /^(content-length|transfer-encoding)$/i.test(name));
  const lines = [
    `${method} ${target} HTTP/1.1`,
    'Host: d',
    ...(headers.some(([name]) => name === 'Connection') ? [] : ['Connection: close']),
    ...headers.map(([name, value]) => `${name}: ${value}`),
    ...(body === undefined || told ? [] : [`Content-Length: ${bytes.length}`]),
  ];
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), bytes]);
}

/** Sends a request on a connection of its own. */
export function exchange(socketPath: string, request: FuzzRequest, patienceMs: number): Promise<FuzzAnswer> {
  return new Promise((resolve, reject) => {
    let received = '';
    let pause: NodeJS.Timeout | undefined;
    const socket = connect(socketPath, () => socket.write(emit(request)));
    const finish = (silent: boolean): void => {
      clearTimeout(patience);
      clearTimeout(pause);
      socket.destroy();
      resolve({ ...parse(received), silent });
    };
    const patience = setTimeout(() => finish(received === ''), patienceMs);
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
      clearTimeout(pause);
      if (received.includes('\r\n\r\n')) pause = setTimeout(() => finish(false), PAUSE_MS);
    });
    socket.on('end', () => finish(false));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      // A daemon that has refused the rest of a request may close before it is read.
      error.code === 'EPIPE' || error.code === 'ECONNRESET' ? finish(false) : reject(error),
    );
  });
}

function parse(received: string): Omit<FuzzAnswer, 'silent'> {
  const [head = '', ...rest] = received.split('\r\n\r\n');
  const status = /^HTTP\/1\.1 (\d{3})/.exec(head)?.[1];
  const body = rest.join('\r\n\r\n');
  return {
    status: status === undefined ? undefined : Number(status),
    type: /^content-type: *(.*)$/im.exec(head)?.[1] ?? '',
    body: /^transfer-encoding: *chunked/im.test(head) ? unchunked(body) : body,
  };
}

function unchunked(body: string): string {
  let text = '';
  let rest = body;
  for (;;) {
    const size = /^([0-9a-f]+)\r\n/i.exec(rest);
    const length = Number.parseInt(size?.[1] ?? '0', 16);
    if (!size || length === 0) return text;
    text += rest.slice(size[0].length, size[0].length + length);
    rest = rest.slice(size[0].length + length + 2);
  }
}
