/** Trees of containers as archives: the daemon's side of `docker cp` and `docker export`. */
import { lstat, readlink } from 'node:fs/promises';
import { posix } from 'node:path';
import { Readable } from 'node:stream';
import { DrydockError, errorCode } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { resolveInRoot } from '../mounts/rootpath.ts';
import { nanoToRfc3339 } from '../stamps.ts';
import type { ArchiveThreads } from './threads.ts';
import type { FromArchive } from './worker.ts';

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

/** The archive of what is at a place. */
export function readArchive(threads: ArchiveThreads, place: Place): Readable {
  return Readable.from(archiveChunks(threads, place), { objectMode: false, highWaterMark: 1 << 20 });
}

async function* archiveChunks(threads: ArchiveThreads, place: Place): AsyncGenerator<Buffer> {
  const thread = threads.take();
  try {
    thread.begin({ op: 'read', ...place, name: baseName(place.path) });
    for (;;) {
      const answer = await thread.answer();
      if (answer.type === 'failed') throw failure(answer);
      if (answer.type !== 'chunk') return;
      const { buffer, byteOffset, length } = answer.bytes;
      yield Buffer.from(buffer, byteOffset, length);
      thread.send({ type: 'more' });
    }
  } finally {
    await threads.release(thread);
  }
}

/**
 * Unpacks an archive below a place.
 * @throws ERR_BAD_ARCHIVE, ERR_BAD_PARAMETER, ERR_NO_SPACE
 */
export async function writeArchive(
  threads: ArchiveThreads,
  place: Place,
  archive: Readable,
  options: { replace: boolean; owner: { uid: number; gid: number } | undefined },
): Promise<void> {
  const thread = threads.take();
  // Fresh memory costs more than what is copied into it: the same pieces go to and fro.
  const spare: Uint8Array<ArrayBuffer>[] = [];
  const answer = async (): Promise<void> => {
    const first = await thread.answer();
    if (first.type === 'failed') throw failure(first);
    if (first.type === 'taken' && first.bytes.length === BATCH_BYTES) spare.push(first.bytes);
  };
  try {
    thread.begin({ op: 'write', ...place, ...options });
    let unanswered = 0;
    for await (const bytes of batches(archive, spare)) {
      thread.send({ type: 'chunk', bytes }, [bytes.buffer]);
      if (++unanswered < BATCHES_UNDER_WAY) continue;
      await answer();
      unanswered--;
    }
    for (; unanswered > 0; unanswered--) await answer();
    thread.send({ type: 'end' });
    await answer();
  } finally {
    await threads.release(thread);
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
