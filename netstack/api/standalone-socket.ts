/** UDP sockets of the services by themselves. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { DrydockError, errorCode } from '#common/errors';
import * as native from '#common/native/socket';
import { bindToDevice } from '#common/native/socket-options';
import { parseAddress } from '../wire/address.ts';

/** A service that runs. */
export interface RunningService {
  /** The real port, when 0 was asked for. */
  readonly port: number;
  close(): Promise<void>;
}

/** What could not be listened at, and the likely reasons. */
export function bindError(what: string, address: string, port: number, error: unknown): DrydockError {
  return new DrydockError(
    'ERR_SERVICE_BIND',
    `${what} cannot listen at ${address} port ${port}: ${errorCode(error) ?? error}. Is the port taken, or does it need root?`,
    { cause: error },
  );
}

/**
 * A socket at an address, or, with `device`, one that sends and receives by that interface alone.
 * @throws DrydockError ERR_SERVICE_BIND
 */
export async function bindUdp(what: string, address: string, port: number, device?: string): Promise<Socket> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  try {
    // A descriptor is taken over at once, within the call.
    const listening = once(socket, 'listening');
    if (device === undefined) socket.bind(port, address);
    else socket.bind({ fd: openOnDevice(address, port, device) });
    await listening;
  } catch (error) {
    throw bindError(what, device === undefined ? address : `${address} of ${device}`, port, error);
  }
  // A send to somebody who is gone is no reason to end.
  socket.on('error', () => {});
  return socket;
}

/** Node has no option for this: the descriptor is made here, and the socket takes it over. */
function openOnDevice(address: string, port: number, device: string): number {
  const fd = native.openSocket(4, 'datagram');
  try {
    bindToDevice(fd, device);
    native.bind(fd, parseAddress(address)!, 0, port);
    return fd;
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

/** Closes a socket, and resolves when that is done. */
export function closeUdp(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.close(() => resolve());
  });
}
