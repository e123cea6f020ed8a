/**
 * The web page on the loopback. Any page that a browser on this machine shows can send requests here, and any user of the machine
 * can connect, so nothing is told without a secret:
 *
 * - Data need a token in the Authorization header, which another page's forms and images cannot set. It is new at each start, and stands
 *   behind the `#` of the URL, which browsers send to nobody.
 * - The Host header must name the loopback: a name that was rebound to 127.0.0.1 is refused (DNS rebinding), with what it asked for.
 * - Browsers that say that another site asks (Sec-Fetch-Site, Origin) are refused.
 * - Everything is read-only: there is no method but GET.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ApiContext } from '../api/context.ts';
import { answerFor } from '../api/errors.ts';
import { listenPlain } from '../api/plain-server.ts';
import type { DaemonConfig } from '../config-options.ts';
import { recordFlow } from './capture.ts';
import { takeSnapshot } from './snapshot.ts';

/** The page's files and their types. */
const FILES: Readonly<Record<string, [name: string, type: string]>> = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page.css': ['page.css', 'text/css; charset=utf-8'],
  '/page.js': ['page.js', 'text/javascript; charset=utf-8'],
  '/format.js': ['format.js', 'text/javascript; charset=utf-8'],
  '/graphs.js': ['graphs.js', 'text/javascript; charset=utf-8'],
};

const HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy':
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cache-Control': 'no-store',
};

/** The page while it is served. */
export interface ServedDashboard {
  /** With the token. */
  readonly url: string;
  close(): Promise<void>;
}

/** Why a request is refused before anything is looked at; undefined: it is not. */
export function refusal(
  request: Pick<IncomingMessage, 'method' | 'headers'>,
  port: number,
): { status: number; text: string } | undefined {
  const { host, origin, 'sec-fetch-site': site } = request.headers;
  const names = ['127.0.0.1', 'localhost', '[::1]'].map((name) => `${name}:${port}`);
  if (host === undefined || !names.includes(host))
    return { status: 421, text: `This is no server for ${host}: open the URL that the daemon printed.` };
  if (site !== undefined && site !== 'same-origin' && site !== 'none')
    return { status: 403, text: 'Not for other sites.' };
  if (origin !== undefined && origin !== `http://${host}`)
    return { status: 403, text: 'Not for other sites.' };
  if (request.method !== 'GET') return { status: 405, text: 'GET only.' };
  return undefined;
}

function knows(header: string | undefined, token: string): boolean {
  const given = Buffer.from(header ?? '');
  const wanted = Buffer.from(`Bearer ${token}`);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

function text(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { ...HEADERS, 'Content-Type': 'text/plain; charset=utf-8' }).end(`${message}\n`);
}

async function answer(context: ApiContext, url: URL, response: ServerResponse): Promise<void> {
  if (url.pathname === '/api/snapshot') {
    const body = JSON.stringify(await takeSnapshot(context));
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'application/json' }).end(body);
    return;
  }
  if (url.pathname !== '/api/capture') return text(response, 404, 'There is no such thing here.');
  const stream = await recordFlow(context, url.searchParams);
  response.writeHead(200, { ...HEADERS, 'Content-Type': 'application/vnd.tcpdump.pcap' });
  // Whoever leaves ends the recording.
  await pipeline(stream, response).catch(() => stream.destroy());
}

async function sendFile(path: string, response: ServerResponse): Promise<void> {
  const [name, type] = FILES[path]!;
  const bytes = await readFile(new URL(`page/${name}`, import.meta.url));
  response.writeHead(200, { ...HEADERS, 'Content-Type': type }).end(bytes);
}

/** Serves the page at the configured address. Its URL is also in `EXEC-ROOT/dashboard-url`, for root alone. @throws ERR_LISTEN */
export async function serveDashboard(context: ApiContext, config: DaemonConfig): Promise<ServedDashboard> {
  const [, host = '', wanted = ''] = /^\[?(.+?)\]?:(\d+)$/.exec(config.dashboard)!;
  const token = randomBytes(18).toString('base64url');
  let port = 0;
  const server = createServer((request, response) => {
    const refused = refusal(request, port);
    if (refused) return text(response, refused.status, refused.text);
    const url = new URL(request.url ?? '/', 'http://dashboard');
    if (!url.pathname.startsWith('/api/') && !FILES[url.pathname])
      return text(response, 404, 'There is no such thing here.');
    if (url.pathname.startsWith('/api/') && !knows(request.headers.authorization, token))
      return text(response, 401, 'The token is missing or old: open the URL that the daemon printed.');
    const done = FILES[url.pathname] ? sendFile(url.pathname, response) : answer(context, url, response);
    done.catch((error: unknown) => {
      const { status, message } = answerFor(error);
      if (status >= 500) context.log.error({ error }, 'the dashboard failed');
      if (response.headersSent) response.destroy();
      else text(response, status, message);
    });
  });
  const address = { host, port: Number(wanted) };
  const served = await listenPlain(server, address, `can't serve the dashboard on ${config.dashboard}`);
  ({ port } = served);
  const url = `${served.url}/#${token}`;
  const note = join(config.execRoot, 'dashboard-url');
  await writeFile(note, `${url}\n`, { mode: 0o600 });
  return {
    url,
    close: async () => {
      await rm(note, { force: true });
      await served.close();
    },
  };
}
