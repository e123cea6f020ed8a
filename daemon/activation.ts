/**
 * What a service manager gives a daemon: sockets that it opened before (sd_listen_fds(3)), and an address to tell when the
 * daemon is ready and when it stops (sd_notify(3)). dockerd calls the former `fd://`.
 */
import { DrydockError } from '#common/errors';
import { close, connectUnix, openUnixSocket, setCloseOnExec, write } from '#common/native/socket';

/** The first descriptor that a service manager passes. */
export const FIRST_FD = 3;

/** A listening socket that came with the process. */
export interface PassedSocket {
  fd: number;
  /** FileDescriptorName= of the socket's unit; `unknown` when there is none. */
  name: string;
}

/** Descriptors of the sockets that `env` speaks of, when they are for process `pid`. */
export function passedSockets({ LISTEN_PID, LISTEN_FDS }: NodeJS.ProcessEnv, pid: number): number[] {
  if (Number(LISTEN_PID) !== pid || !/^\d+$/.test(LISTEN_FDS ?? '')) return [];
  return Array.from({ length: Number(LISTEN_FDS) }, (_, index) => FIRST_FD + index);
}

/**
 * Takes over the sockets that `env` speaks of, when they are for process `pid`. The variables are removed and the descriptors
 * closed at exec, so that no container hears of them.
 */
export function takePassedSockets(env: NodeJS.ProcessEnv, pid: number): PassedSocket[] {
  const fds = passedSockets(env, pid);
  const names = (env.LISTEN_FDNAMES ?? '').split(':');
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  return fds.map((fd, index) => {
    setCloseOnExec(fd);
    return { fd, name: names[index] || 'unknown' };
  });
}

/**
 * The sockets that `fd://WHICH` means: all for nothing or `*`, one by its number (3 is the first, as in dockerd), or those
 * of a name. @throws ERR_LISTEN when there is none
 */
export function choosePassed(sockets: readonly PassedSocket[], which: string): readonly PassedSocket[] {
  const all = which === '' || which === '*';
  const chosen = sockets.filter(
    ({ fd, name }) => all || (/^\d+$/.test(which) ? fd === Number(which) : name === which),
  );
  if (chosen.length === 0)
    throw new DrydockError(
      'ERR_LISTEN',
      `no sockets found via socket activation for fd://${which}: make sure the service was started by systemd (${sockets.length} were passed)`,
    );
  return chosen;
}

/**
 * Tells the service manager at `address` (NOTIFY_SOCKET; a leading `@` is the abstract namespace).
 * @throws SyscallError when nobody listens there
 */
export function notifyManager(address: string, state: 'READY=1' | 'STOPPING=1'): void {
  const fd = openUnixSocket('datagram');
  try {
    connectUnix(fd, address);
    const bytes = Buffer.from(state);
    write(fd, bytes, 0, bytes.length);
  } finally {
    close(fd);
  }
}
