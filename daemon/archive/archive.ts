/** Trees of containers as archives: the daemon's side of `docker cp` and `docker export`. */
import { lstat, readlink } from 'node:fs/promises';
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import type { Worker } from 'node:worker_threads';
import { DrydockError, errorCode } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { resolveInRoot } from '../mounts/rootpath.ts';
import { nanoToRfc3339 } from '../stamps.ts';
import type { ArchiveJob, FromArchive, ToArchive } from './worker.ts';

/** Where a path of a container is: a root on the host, and an absolute path inside it. */
export interface Place {
  root: string;
  path: string;
  /** How the users of containers are those of the machine, when they are others. */
  maps: UserMaps | undefined;
}

/** X-Docker-Container-Path-Stat. `mode` has the bits of Go's FileMode. */
export interface PathStat {
  name: string;
  size: number;
  mode: number;
  mtime: string;
  linkTarget: string;
}

/** Go: io/fs FileMode. */
const GO_MODE = {
  directory: 2 ** 31,
  symlink: 2 ** 27,
  device: 2 ** 26,
  fifo: 2 ** 25,
  socket: 2 ** 24,
  setuid: 2 ** 23,
  setgid: 2 ** 22,
  character: 2 ** 21,
  sticky: 2 ** 20,
};

const GO_TYPES: ReadonlyMap<number, number> = new Map([
  [0o040000, GO_MODE.directory],
  [0o120000, GO_MODE.symlink],
  [0o060000, GO_MODE.device],
  [0o020000, GO_MODE.device + GO_MODE.character],
  [0o010000, GO_MODE.fifo],
  [0o140000, GO_MODE.socket],
]);

/** A mode of lstat(2) in Go's bits. */
export function goMode(mode: number): number {
  const bit = (mask: number, value: number): number => ((mode & mask) !== 0 ? value : 0);
  return (
    (mode & 0o777) +
    (GO_TYPES.get(mode & 0o170000) ?? 0) +
    bit(0o4000, GO_MODE.setuid) +
    bit(0o2000, GO_MODE.setgid) +
    bit(0o1000, GO_MODE.sticky)
  );
}

/** The name that a path has in an archive and in its stat: its last part, `.` when it ends in one. */
export function baseName(path: string): string {
  if (/\/\.$/.test(path)) return '.';
  return posix.basename(path) || '/';
}

/**
 * What is at a place. A last part that is a link is told as one, unless the path ends in `/` or `/.`.
 * @throws ERR_PATH_NOT_FOUND, ERR_NOT_A_FOLDER
 */
export async function statPath(place: Place, shown: string): Promise<PathStat> {
  const { root, path } = place;
  const follow = /\/\.?$/.test(path);
  const parent = follow ? path : posix.dirname(path);
  const host = await resolveInRoot(root, parent);
  const target = follow ? host : posix.join(host, posix.basename(path));
  const found = await lstat(target, { bigint: true }).catch((error) => {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR')
      throw new DrydockError('ERR_PATH_NOT_FOUND', shown);
    throw error;
  });
  if (follow && !found.isDirectory() && path !== '/')
    throw new DrydockError('ERR_NOT_A_FOLDER', `${path}: not a directory`);
  return {
    name: baseName(path),
    size: Number(found.size),
    mode: goMode(Number(found.mode)),
    mtime: goTime(nanoToRfc3339(found.mtimeNs)),
    linkTarget: found.isSymbolicLink() ? await linkTarget(root, path, await readlink(target)) : '',
  };
}

/** As Go writes times: without the zeros at the end of the fraction. */
function goTime(text: string): string {
  return text.replace(/\.?0+Z$/, 'Z');
}

/** Where a link leads in the end, as a path of the container. */
async function linkTarget(root: string, path: string, target: string): Promise<string> {
  const absolute = target.startsWith('/') ? target : posix.join(posix.dirname(path), target);
  const host = await resolveInRoot(root, absolute);
  return host.slice(root.length) || '/';
}

/** The archive of what is at a place. @param worker a thread that waits for a job */
export function readArchive(worker: Worker, place: Place): Readable {
  worker.postMessage({ op: 'read', ...place, name: baseName(place.path) } satisfies ArchiveJob);
  const stream = new Readable({
    highWaterMark: 1 << 20,
    read() {
      worker.postMessage({ type: 'more' } satisfies ToArchive);
    },
    destroy(error, done) {
      worker.terminate().then(
        () => done(error),
        () => done(error),
      );
    },
  });
  worker.on('message', (message: FromArchive) => {
    if (message.type === 'chunk')
      stream.push(Buffer.from(message.bytes.buffer, message.bytes.byteOffset, message.bytes.length));
    if (message.type === 'end') stream.push(null);
    if (message.type === 'failed') stream.destroy(failure(message));
  });
  worker.on('error', (error) => stream.destroy(error));
  return stream;
}

/**
 * Unpacks an archive below a place.
 * @param worker a thread that waits for a job @throws ERR_BAD_ARCHIVE, ERR_BAD_PARAMETER, ERR_NO_SPACE
 */
export async function writeArchive(
  worker: Worker,
  place: Place,
  archive: Readable,
  options: { replace: boolean; owner: { uid: number; gid: number } | undefined },
): Promise<void> {
  worker.postMessage({ op: 'write', ...place, ...options } satisfies ArchiveJob);
  const answers: FromArchive[] = [];
  let wake = (): void => {};
  worker.on('message', (message: FromArchive) => {
    answers.push(message);
    wake();
  });
  worker.on('error', (error) => {
    answers.push({ type: 'failed', code: undefined, message: error.message });
    wake();
  });
  // Fresh memory costs more than what is copied into it: the same pieces go to and fro.
  const spare: Uint8Array<ArrayBuffer>[] = [];
  const answer = async (): Promise<void> => {
    while (answers.length === 0)
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    const [first] = answers.splice(0, 1);
    if (first!.type === 'failed') throw failure(first);
    if (first!.type === 'more' && first.bytes.length === BATCH_BYTES) spare.push(first.bytes);
  };
  let unanswered = 0;
  const send = async (bytes: Uint8Array<ArrayBuffer>): Promise<void> => {
    worker.postMessage({ type: 'chunk', bytes } satisfies ToArchive, [bytes.buffer]);
    if (++unanswered < BATCHES_UNDER_WAY) return;
    await answer();
    unanswered--;
  };
  try {
    for await (const batch of batches(archive, spare)) await send(batch);
    for (; unanswered > 0; unanswered--) await answer();
    worker.postMessage({ type: 'end' } satisfies ToArchive);
    await answer();
  } finally {
    await worker.terminate();
  }
}

/** A message to the thread costs as much as many kilobytes: what comes from the network is gathered. */
const BATCH_BYTES = 1 << 20;
/** While one is written to disk the next one is gathered. */
const BATCHES_UNDER_WAY = 2;

/** The bytes of a stream in pieces of {@link BATCH_BYTES}, each in memory of its own, which can be given away. */
async function* batches(
  stream: Readable,
  spare: Uint8Array<ArrayBuffer>[],
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const next = (): Uint8Array<ArrayBuffer> => spare.pop() ?? new Uint8Array(BATCH_BYTES);
  let batch = next();
  let used = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>)
    for (let off = 0; off < chunk.length; ) {
      const taken = Math.min(chunk.length - off, BATCH_BYTES - used);
      batch.set(chunk.subarray(off, off + taken), used);
      off += taken;
      used += taken;
      if (used < BATCH_BYTES) continue;
      yield batch;
      batch = next();
      used = 0;
    }
  if (used > 0) yield batch.slice(0, used);
}

function failure(message: FromArchive & { type: 'failed' }): DrydockError {
  return new DrydockError(message.code ?? 'ERR_ARCHIVE', message.message);
}
