/**
 * Mounting: checks both ends, makes the kernel's mount, and starts the thread that serves it.
 *
 * One thread for each mount. It blocks in read(2), which is the shortest way from a request to its answer; a slow
 * folder or a crash concerns nobody else; and the price, an isolate of some megabytes, is small beside the container
 * that uses the mount. One thread for many mounts would need another system call for each request to learn which mount
 * it is for.
 *
 * The server looks at the source through a private copy of its mounts, made before the target is mounted. So a source
 * that contains the target (`-v /:/host`) doesn't lead back into the mount, where the server would wait for itself.
 */
import { closeSync, readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { compiledEntry } from '#common/entry';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { type Log, nullLog } from '#common/log';
import { openWatch } from '#common/native/fanotify';
import * as nativeFs from '#common/native/fs';
import * as fuse from '#common/native/fuse';
import { errnoName } from '#common/native/libc';
import { helpers } from '../aside/helpers.ts';
import { openRoot } from '../backing/posix-linux.ts';
import { Exchange } from '../notify/exchange.ts';
import type { WatcherInput } from '../notify/watcher.ts';
import type { Policy } from '../policy/options.ts';
import type { OperationStats } from '../statistics.ts';
import { type Control, control } from './control.ts';
import { parseMountInfo } from './mountinfo.ts';
import {
  type BridgeMount,
  type BridgeMountOptions,
  checkEnds,
  openTrace,
  policyOf,
  statsOf,
} from './options.ts';
import type { WorkerInput, WorkerMessage } from './worker.ts';

/** What the kernel lists as the type of our mounts. */
export const FS_TYPE = 'fuse.drydock';

/** How long an unmounted server may take to end by itself before it is told to stop. */
const END_GRACE_MS = 1500;

/** Mounts of this process, which must not outlive it. */
const live = new Set<Mount>();

/** Targets of this process's mounts. */
export function liveTargets(): Set<string> {
  return new Set([...live].map((mount) => mount.target));
}

/** Where a mount is; `device` is its file system's as `major:minor`. */
interface Place {
  source: string;
  target: string;
  device: string;
}

class Mount implements BridgeMount {
  readonly source: string;
  readonly target: string;
  readonly ended: Promise<void>;
  readonly #fuseFd: number;
  readonly #control: Control;
  readonly #worker: Worker;
  readonly #log: Log;
  readonly #device: string;
  readonly #writesBack: boolean;
  #watcherEnded: Promise<void> = Promise.resolve();
  #mounted = true;
  #error: unknown;
  #unmounting: Promise<void> | undefined;

  constructor(place: Place, input: WorkerInput, shared: Control, log: Log) {
    const { source, target } = place;
    this.#device = place.device;
    this.#writesBack = input.policy.consistency === 'delegated';
    this.source = source;
    this.target = target;
    this.#fuseFd = input.fuseFd;
    this.#control = shared;
    this.#log = log;
    // Without the flags of this process, such as import conditions that would lead away from compiled code.
    this.#worker = new Worker(compiledEntry('fsbridge/mount/worker'), { workerData: input, execArgv: [] });
    const served = new Promise<void>((resolve) => {
      this.#worker.on('error', (error) => {
        this.#error = error;
        log.error({ error: errorMessage(error), target }, 'file server failed');
      });
      this.#worker.on('exit', () => {
        this.#finish();
        resolve();
      });
    });
    this.ended = served.then(() => this.#watcherEnded);
    live.add(this);
    if (live.size === 1) process.on('exit', stopAll);
  }

  /** Settles when the kernel and the server have agreed; rejects when the server ended before. */
  async started(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#worker.on('message', (message: WorkerMessage) => {
        if (message.kind === 'started') resolve();
        else this.#log.error({ ...message, target: this.target }, 'file server trouble');
      });
      this.#worker.once('exit', () => {
        const text = `The file server for ${this.source} ended before ${this.target} was in use; see the log.`;
        reject(new DrydockError('ERR_FS_SERVER', text, { cause: this.#error }));
      });
    });
  }

  /** Starts the thread that tells of changes on the host. The mount is in use and served already. */
  watchHost(input: WatcherInput): void {
    const watcher = new Worker(compiledEntry('fsbridge/notify/watcher'), { workerData: input, execArgv: [] });
    this.#watcherEnded = new Promise((resolve) => {
      watcher.on('error', (error) => {
        this.#log.error({ error: errorMessage(error), target: this.target }, 'watching the host failed');
      });
      watcher.on('exit', () => resolve());
    });
  }

  async stats(): Promise<Record<string, OperationStats>> {
    return statsOf(this.#control.statistics);
  }

  unmount(): Promise<void> {
    this.#unmounting ??= this.#unmount();
    return this.#unmounting;
  }

  /** Ends everything at once, without waiting: the process is about to end. */
  stopNow(): void {
    this.#detach();
    this.#stop();
  }

  async #unmount(): Promise<void> {
    // What the kernel still has to write must not depend on who uses the mount last.
    if (this.#mounted && this.#writesBack) nativeFs.syncPath(this.target);
    this.#detach();
    const grace = new Promise<'late'>((resolve) => setTimeout(resolve, END_GRACE_MS, 'late').unref());
    // Any mount namespace that was made meanwhile has a copy of the mount, and keeps it until we let go of it.
    if ((await Promise.race([this.ended, grace])) === 'late') {
      this.#log.info(
        { target: this.target },
        'mount still known elsewhere: whoever uses it there gets errors',
      );
      this.#stop();
      await this.ended;
    }
  }

  /** Takes the mount out of the tree: orderly, or when busy lazily and with the connection cut. */
  #detach(): void {
    if (!this.#mounted) return;
    this.#mounted = false;
    try {
      fuse.unmountFs(this.target, fuse.UMOUNT_NOFOLLOW);
    } catch (error) {
      if (errorCode(error) === 'EINVAL' || errorCode(error) === 'ENOENT') return;
      try {
        fuse.unmountFs(this.target, fuse.MNT_FORCE | fuse.MNT_DETACH | fuse.UMOUNT_NOFOLLOW);
      } catch (forced) {
        this.#log.warn({ target: this.target, error: errorMessage(forced) }, 'unmount failed');
      }
    }
  }

  /** Tells the thread to stop and cuts the connection, which wakes it. */
  #stop(): void {
    this.#control.stop();
    if (this.#control.closed()) return;
    const result = fuse.abortConnection(Number(this.#device.split(':')[1]));
    if (result < 0) this.#log.warn({ target: this.target, error: errnoName(-result) }, 'abort failed');
  }

  #finish(): void {
    live.delete(this);
    if (live.size === 0) process.off('exit', stopAll);
    // Closed by us only if the thread died without doing it: else the number may be another file's by now.
    if (!this.#control.closed()) fuse.closeFd(this.#fuseFd);
    this.#detach();
  }
}

function stopAll(): void {
  for (const mount of live) mount.stopNow();
}

/**
 * Opens the source through a private copy of its mounts, or, where that isn't permitted, as it is. No link is followed:
 * what was checked under this path is what is served.
 */
function openSource(source: string, target: string, policy: Policy): number {
  const attributes =
    nativeFs.MOUNT_ATTR_NODEV |
    nativeFs.MOUNT_ATTR_NOSYMFOLLOW |
    (policy.readOnly ? nativeFs.MOUNT_ATTR_RDONLY : 0);
  const fd = openRoot(source);
  const copy = nativeFs.cloneTree(`/proc/self/fd/${fd}`, attributes, nativeFs.AT_RECURSIVE);
  if (copy >= 0) {
    nativeFs.close(fd);
    return copy;
  }
  if (`${target}/`.startsWith(source === '/' ? '/' : `${source}/`)) {
    nativeFs.close(fd);
    throw new DrydockError(
      'ERR_FS_LOOP',
      `Can't mount ${source} on ${target}, which is inside it, without the right to copy mounts (CAP_SYS_ADMIN, Linux 5.12). Choose a target elsewhere.`,
    );
  }
  return fd;
}

/**
 * Serves a host folder (or file) at a target until unmounted. Needs root and /dev/fuse; on macOS an installed FUSE-T.
 * Fails with ERR_FS_SOURCE, ERR_FS_TARGET, ERR_FS_LOOP, ERR_FS_NOT_EXPORTED, ERR_FS_ID_MAP, ERR_FS_TRACE, ERR_FS_SERVER, ERR_FS_FUSE_T, or a SyscallError of mount(2).
 */
export async function mountFolder(options: BridgeMountOptions): Promise<BridgeMount> {
  if (process.platform === 'darwin') return (await import('./fuse-t.ts')).mountByFuseT(options);
  const { source, target, file } = await checkEnds(options);
  const policy = policyOf(options);
  const traceFd = await openTrace(options.trace, target);
  const jobs = await helpers();
  let rootFd = -1;
  let fuseFd = -1;
  try {
    rootFd = openSource(source, target, policy);
    fuseFd = fuse.openFuse();
    // Where everybody is the owner there is nothing to check: the host's own permissions are the server's.
    const checks = policy.ownership === 'host' ? ',default_permissions' : '';
    const rootMode = file ? '100000' : '40000';
    const data = `fd=${fuseFd},rootmode=${rootMode},user_id=0,group_id=0,allow_other${checks}`;
    fuse.mountFs(source, target, FS_TYPE, fuse.MS_NOSUID | fuse.MS_NODEV, data);
  } catch (error) {
    if (fuseFd >= 0) fuse.closeFd(fuseFd);
    if (rootFd >= 0) nativeFs.close(rootFd);
    if (traceFd >= 0) closeSync(traceFd);
    throw error;
  }
  const shared = control();
  // A single file has no folder to watch; its events are those of the folder that it was mounted from.
  const watchFd = file ? -1 : openWatch();
  const exchange = watchFd < 0 ? undefined : new Exchange();
  const watch = exchange && { fd: watchFd, shared: exchange.shared };
  const input: WorkerInput = { fuseFd, rootFd, shared: shared.shared, policy, traceFd, jobs, watch };
  const log = options.log ?? nullLog;
  const device = deviceAt(target);
  const mount = new Mount({ source, target, device }, input, shared, log);
  try {
    await mount.started();
    if (watch !== undefined) {
      // A private, writable way into the mount.
      const treeFd = nativeFs.cloneTree(target, 0, 0);
      mount.watchHost({ watchFd, fuseFd, treeFd, device, target, shared: watch.shared });
    }
    if (policy.readOnly) {
      const flags = fuse.MS_REMOUNT | fuse.MS_BIND | fuse.MS_RDONLY | fuse.MS_NOSUID | fuse.MS_NODEV;
      fuse.mountFs('', target, '', flags, '');
    }
  } catch (error) {
    await mount.unmount();
    throw error;
  }
  return mount;
}

/** The device of the mount of ours that was just made at `target`. */
function deviceAt(target: string): string {
  const entries = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  return entries.findLast((entry) => entry.target === target && entry.type === FS_TYPE)?.device ?? '';
}
