/** How the control API reads requests and answers them, whoever asks. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Answer, Route } from './route.ts';

/** Largest body of a request. */
export const BODY_BYTES_MAX: number = 1024 * 1024;
/** How long a client may take for its head and body. */
export const REQUEST_MS_MAX: number = 30_000;

/** Codes of errors that are the client's fault. */
const CLIENT_FAULTS: ReadonlySet<string> = new Set([
  'ERR_BODY_INVALID',
  'ERR_ZONE_INVALID',
  'ERR_NET_CONFIG_INVALID',
  'ERR_POLICY_INVALID',
  'ERR_FORWARD_INVALID',
  'ERR_FILTER_INVALID',
  'ERR_CAPTURE_OPTIONS',
]);

/** An error of what a body says. */
export function bodyInvalid(what: string): DrydockError {
  return new DrydockError('ERR_BODY_INVALID', what);
}

/** Answers a request by a table of routes. `caller` is the address of the guest that asks; undefined: it is the host. */
export async function answer(
  table: readonly Route[],
  request: IncomingMessage,
  response: ServerResponse,
  caller?: string,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://control');
  const ofPath = table.filter(({ path }) => path === url.pathname);
  const route = ofPath.find(({ method }) => method === request.method);
  if (!route) {
    const [other] = ofPath;
    // gvproxy's words for its own paths, and those of VPNKit's HTTP server.
    if (other?.manner === 'vpnkit')
      sendVpnkit(response, { status: 405, json: { message: 'Method Not Allowed' } });
    else if (other?.method === 'POST') send(response, 400, 'post only\n');
    else if (other) send(response, 405, `${other.method} only\n`);
    else send(response, 404, '404 page not found\n');
    return;
  }
  try {
    const { method, manner } = route;
    const hasBody = method === 'POST' || method === 'PUT' || (method === 'DELETE' && manner === 'vpnkit');
    const body = hasBody ? await readJson(request) : undefined;
    const given = await route.answer(body, url.searchParams, caller);
    const { status = 200, json, text, stream } = given;
    if (manner === 'vpnkit') sendVpnkit(response, given);
    else if (stream) {
      response.writeHead(status, { 'Content-Type': 'application/vnd.tcpdump.pcap' });
      // The head goes out before the first frame: Wireshark waits for it.
      response.flushHeaders();
      // Whoever leaves ends the capture; nobody is left to be told.
      pipeline(stream, response, () => {});
    } else send(response, status, text ?? (json === undefined ? '' : `${JSON.stringify(json)}\n`));
  } catch (error) {
    if (route.manner === 'vpnkit' && error instanceof DrydockError) {
      sendVpnkit(response, { status: 400, json: { message: error.message } });
      return;
    }
    const status = CLIENT_FAULTS.has(errorCode(error) ?? '') ? 400 : 500;
    send(response, status, `${errorMessage(error)}\n`);
  }
}

function sendVpnkit(response: ServerResponse, { status = 200, json, text = '' }: Answer): void {
  if (json === undefined) send(response, status, text);
  else send(response, status, `${JSON.stringify(json)}\n`, 'application/json; charset=UTF-8');
}

/** Sends an answer of text. */
export function send(
  response: ServerResponse,
  status: number,
  text: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let length = 0;
  // What is too long is heard to its end, within the time that a request may take: else the answer would be lost.
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length <= BODY_BYTES_MAX) chunks.push(chunk);
  }
  if (length > BODY_BYTES_MAX) throw bodyInvalid(`The body is longer than ${BODY_BYTES_MAX} bytes.`);
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (error) {
    throw bodyInvalid(errorMessage(error));
  }
}
