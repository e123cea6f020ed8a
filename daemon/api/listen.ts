/** The sockets on which the API is served. */
import { chmod, chown, lstat, readFile, unlink } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { boundUnixPath } from '#common/native/socket';
import type { ListenAddress as Wish } from '../config.ts';
import { noteCaller } from './callers.ts';
import { serveUpgrades } from './hijack.ts';

/** Where to listen, with sockets that were passed found. */
export type ListenAddress = Exclude<Wish, { kind: 'fd' }> | { kind: 'passed'; fd: number };

/** TLS of tcp listeners, as files. */
export interface TlsFiles {
  cert: string;
  key: string;
  /** Clients must have a certificate of this CA. */
  ca: string | undefined;
}

/** Options of all listeners. */
export interface ListenOptions {
  tls: TlsFiles | undefined;
  /** Group that owns the unix sockets, by number. */
  groupId: number | undefined;
}

/** An open listener. */
export interface Listener {
  /** `unix:///path` or `tcp://address:port`. */
  readonly address: string;
  /** Takes no more clients. Those that are connected stay. */
  refuse(): void;
  /** Ends all connections, those with a request under way after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

/** Opens one listener. @throws ERR_LISTEN with the address and the reason */
export async function listen(
  app: FastifyInstance,
  address: ListenAddress,
  options: ListenOptions,
): Promise<Listener> {
  const server = await makeServer(app, address, options);
  // Uploads take as long as they take, and a client may wait for an event for days.
  server.requestTimeout = 0;
  server.keepAliveTimeout = 0;
  serveUpgrades(server, app);
  // Hijacked connections are no longer HTTP, so Node's server does not know them.
  const sockets = new Set<Socket>();
  server.on(address.kind === 'tcp' && options.tls ? 'secureConnection' : 'connection', noteCaller);
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  if (address.kind === 'unix') await removeStaleSocket(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(address, error)));
    const done = (): void => resolve();
    if (address.kind === 'unix') listenForOwner(server, address.path, done);
    else if (address.kind === 'passed') server.listen({ fd: address.fd }, done);
    else server.listen(address.port, address.host, done);
  });
  if (address.kind === 'unix') {
    if (options.groupId !== undefined) await chown(address.path, 0, options.groupId);
    await chmod(address.path, 0o660);
  }
  const closed = new Promise<void>((resolve) => server.once('close', resolve));
  const refuse = (): void => {
    if (server.listening) server.close();
  };
  return {
    address: describe(server, address),
    refuse,
    async close(graceMs) {
      refuse();
      server.closeIdleConnections();
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

/** Nobody else can connect before the socket has its mode and its group, whatever the daemon's umask is. */
function listenForOwner(server: Server, path: string, done: () => void): void {
  const before = process.umask(0o177);
  try {
    server.listen(path, done);
  } finally {
    process.umask(before);
  }
}

async function makeServer(
  app: FastifyInstance,
  address: ListenAddress,
  { tls }: ListenOptions,
): Promise<Server> {
  const handler = (
    request: Parameters<typeof app.routing>[0],
    response: Parameters<typeof app.routing>[1],
  ): void => app.routing(request, response);
  if (address.kind !== 'tcp' || !tls) return createServer(handler);
  const [cert, key, ca] = await Promise.all([
    readFile(tls.cert),
    readFile(tls.key),
    tls.ca === undefined ? undefined : readFile(tls.ca),
  ]);
  return createTlsServer(
    {
      cert,
      key,
      minVersion: 'TLSv1.2',
      // As for plain HTTP: the end of a client's input must not end its output.
      allowHalfOpen: true,
      ...(ca && { ca, requestCert: true, rejectUnauthorized: true }),
    },
    handler,
  ) as unknown as Server;
}

/** A socket file that nobody answers on is left from a daemon that was killed. @throws ERR_LISTEN when it is in use, or no socket */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return;
  if (!found.isSocket())
    throw new DrydockError(
      'ERR_LISTEN',
      `can't listen on ${path}: it is there already and is no socket. Remove it or choose another --host.`,
    );
  const answers = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (answers)
    throw new DrydockError(
      'ERR_LISTEN',
      `can't listen on ${path}: another daemon is already listening there. Stop it or choose another --host.`,
    );
  await unlink(path);
}

function listenError(address: ListenAddress, error: Error): DrydockError {
  const where =
    address.kind === 'unix'
      ? address.path
      : address.kind === 'passed'
        ? `the passed socket ${address.fd}`
        : `${address.host}:${address.port}`;
  const remedy =
    errorCode(error) === 'EADDRINUSE'
      ? 'another program is already listening there; choose another --host'
      : errorMessage(error);
  return new DrydockError('ERR_LISTEN', `can't listen on ${where}: ${remedy}`, { cause: error });
}

function describe(server: Server, address: ListenAddress): string {
  if (address.kind === 'unix') return `unix://${address.path}`;
  if (address.kind === 'passed') {
    const path = boundUnixPath(address.fd);
    if (path !== undefined) return path === '' ? `fd://${address.fd}` : `unix://${path}`;
  }
  const bound = server.address() as AddressInfo;
  const host = address.kind === 'tcp' ? address.host : bound.address;
  return `tcp://${host.includes(':') ? `[${host}]` : host}:${bound.port}`;
}
