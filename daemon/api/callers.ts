/**
 * Who asked. On a unix socket the kernel knows (SO_PEERCRED): the user, group and process that connected, which nobody can forge; over
 * TCP it is the address, and with TLS the name in the client's certificate. It is for the log: who may connect is decided by the mode
 * and group of the socket, or by the certificate.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type UnixPeer, unixPeer } from '#common/native/socket';

/** A client, as the log has it. */
export type Caller = UnixPeer | { address: string; certificate?: string };

const callers = new WeakMap<object, Caller>();

/** Notes who is at the other end of a new connection, while it can be asked. */
export function noteCaller(socket: Socket): void {
  const caller = callerAt(socket);
  if (caller) callers.set(socket, caller);
}

/** The client of a connection. */
export function callerOf(socket: object): Caller | undefined {
  return callers.get(socket);
}

function callerAt(socket: Socket): Caller | undefined {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress !== undefined) {
    const name = (socket as TLSSocket).getPeerCertificate?.()?.subject?.CN;
    return {
      address: `${remoteAddress} ${remotePort}`,
      ...(name !== undefined && { certificate: String(name) }),
    };
  }
  // Node has no other way to a socket's descriptor.
  const { fd } = (socket as unknown as { _handle?: { fd?: number } })._handle ?? {};
  return fd === undefined || fd < 0 ? undefined : unixPeer(fd);
}
