/**
 * FUSE-T: FUSE for macOS without a kernel extension. Its helper `go-nfsv4` is an NFS server for the system and a FUSE
 * client for us: it sends the kernel's requests (the 7.19 ABI of macFUSE) over a socket. We start an installed helper
 * and never ship one, for its licence is its vendor's: free for personal use, to be bought for commercial.
 *
 * Protocol (macos-fuse-t/libfuse, lib/mount_darwin.c): the helper has the requests' socket as descriptor 3 and a
 * control socket as descriptor 4. Requests come at once, also before it has mounted; `mount` on the control socket is
 * answered by four bytes, 0 if it worked; `unmount` ends it. The helper's end closes the requests' socket.
 *
 * Has never run on a Mac: tests play the helper's part.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import type { Duplex } from 'node:stream';
import { DrydockError } from '#common/errors';
import type { Session } from '../session.ts';
import { StreamServer } from './stream.ts';

/** Data of one request; told to the helper too. */
const RW_BYTES = 1 << 20;
const HEADER_ROOM = 8192;

/** Where installations put the helper. */
const PLACES = ['/usr/local/bin/go-nfsv4', '/Library/Application Support/fuse-t/bin/go-nfsv4'];

/** Seconds for which the system's NFS client may answer from memory: it knows no notifications. */
const ATTRIBUTES_SEC = 1;

/** The helper's path: FUSE_NFSSRV_PATH, or an installed one. Undefined if there is none. */
export function findFuseT(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const places = env.FUSE_NFSSRV_PATH ? [env.FUSE_NFSSRV_PATH] : PLACES;
  return places.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export interface FuseTOptions {
  /** From findFuseT(). */
  helper: string;
  /** Where to mount. */
  target: string;
  /** Made with layout-darwin.ts's layout. */
  session: Session;
  /** #common/native/libc's, where the session's host needs addresses. */
  addressOf: (view: Uint8Array) => number;
  readOnly: boolean;
  volumeName: string;
}

export interface FuseTMount {
  /** Settles when the helper has ended, by unmount() or by itself. */
  readonly ended: Promise<void>;
  unmount(): Promise<void>;
}

/** Starts the helper and serves its requests. Fails with ERR_FS_FUSE_T if it can't mount. */
export async function serveFuseT(options: FuseTOptions): Promise<FuseTMount> {
  const { session, target } = options;
  const child = spawn(options.helper, helperArguments(options), {
    // Further pipes are socket pairs, which is what the helper wants.
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    detached: true,
    env: {
      ...process.env,
      _FUSE_COMMFD: '3',
      _FUSE_MONFD: '4',
      _FUSE_COMMVERS: '2',
      _FUSE_CALL_BY_LIB: '1',
      _FUSE_DAEMON_PATH: process.execPath,
    },
  });
  const ended = new Promise<void>((resolve) => {
    child.on('error', () => resolve());
    child.on('exit', () => resolve());
  }).then(() => session.close());
  const requests = child.stdio[3] as Duplex;
  const control = child.stdio[4] as Duplex;
  const server = new StreamServer(session, RW_BYTES + HEADER_ROOM, options.addressOf, (bytes) => {
    // A helper that doesn't read its replies gets no further requests handled.
    if (!requests.write(bytes)) {
      requests.pause();
      requests.once('drain', () => requests.resume());
    }
  });
  requests.on('data', (chunk: Buffer) => {
    if (!server.receive(chunk)) requests.destroy();
  });
  for (const socket of [requests, control]) socket.on('error', () => socket.destroy());
  const status = await mountStatus(control);
  if (status !== 0) {
    child.kill();
    await ended;
    const why = status === undefined ? 'it ended first' : `status ${status}`;
    const text = `FUSE-T could not mount on ${target} (${why}). See its log in ~/Library/Logs/fuse-t, and whether "Network Volumes" are permitted in System Settings.`;
    throw new DrydockError('ERR_FS_FUSE_T', text);
  }
  return { ended, unmount: () => unmount(child, control, ended) };
}

function helperArguments(options: FuseTOptions): string[] {
  return [
    '--volname',
    options.volumeName,
    ...(options.readOnly ? ['-r'] : []),
    `--attrcache-timeout=${ATTRIBUTES_SEC}`,
    `--rwsize=${RW_BYTES}`,
    '--namedattr=false',
    options.target,
  ];
}

/** Asks the helper to mount; its status, or undefined if it went away. */
async function mountStatus(control: Duplex): Promise<number | undefined> {
  control.write('mount');
  return await new Promise((resolve) => {
    let answer = Buffer.alloc(0);
    control.on('data', (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length >= 4) resolve(answer.readInt32LE(0));
    });
    control.once('close', () => resolve(undefined));
  });
}

async function unmount(child: ChildProcess, control: Duplex, ended: Promise<void>): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) control.end('unmount');
  await ended;
}
