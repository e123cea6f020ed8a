/**
 * The thread behind `docker cp` and `docker export`. A container that runs can change its tree while we walk it, so no look at
 * a path is worth anything by the time it is used. Reading therefore happens with the container's root as this thread's
 * root: whatever a path has become, it leads to no file of the host. Writing opens every folder by openat2 within the
 * root (daemon/image/extract.ts).
 *
 * Messages: a job; then chunks, each answered when it was taken, so that neither side runs ahead. Every job ends with `end` or
 * `failed` and leaves no descriptor open, also one that was aborted; then the next one may come.
 */
import '#common/small-heap';
import { closeSync, constants, lstatSync, openSync, statSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { assert, DrydockError, errorCode, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { openInRoot } from '#common/native/layer-fs';
import { CLONE_FS, changeRoot, returnToRoot, unshare } from '#common/native/namespace';
import { LayerExtractor } from '../image/extract.ts';
import { fileData, headerOf, packTree } from '../image/pack.ts';
import { BLOCK, emitHeader, padding, type TarHeader, trailer } from '../image/tar/header.ts';
import { TarReader, type TarSink } from '../image/tar/reader.ts';

/** What to do; `maps` tells how the users of containers are those of the machine, when they are others; `root` is the container's root on the host, `path` absolute inside it. */
export type ArchiveJob =
  | { op: 'read'; root: string; path: string; name: string; maps: UserMaps | undefined }
  | {
      op: 'write';
      root: string;
      path: string;
      /** A folder may replace a file and the other way round. */
      replace: boolean;
      /** Owner of all that is written, instead of the archive's. */
      owner: { uid: number; gid: number } | undefined;
      maps: UserMaps | undefined;
    };

/** To the daemon. */
export type FromArchive =
  | { type: 'chunk'; bytes: Uint8Array }
  /** A chunk was taken; its memory comes back. */
  | { type: 'taken'; bytes: Uint8Array<ArrayBuffer> }
  | { type: 'end' }
  | { type: 'failed'; code: string | undefined; message: string };

/** From the daemon. */
export type ToArchive =
  | { type: 'chunk'; bytes: Uint8Array<ArrayBuffer> }
  | { type: 'end' }
  | { type: 'more' }
  /** Nobody wants the rest of the job. */
  | { type: 'abort' };

/** A job under way: takes what is said to it; true: it is over. */
interface Work {
  take(message: ToArchive): boolean;
  /** Closes what is open. */
  close(): void;
}

assert(parentPort, 'the archive worker is a worker thread');
const port = parentPort;

const latin1 = (text: string): string => Buffer.from(text).toString('latin1');

/** The archive of one path: the thing itself under `name`, and what is below it. */
function* pack({ path, name, maps }: ArchiveJob & { op: 'read' }): Generator<Buffer> {
  const follow = /\/\.?$/.test(path);
  const stats = (follow ? statSync : lstatSync)(path, { bigint: true });
  const header = headerOf(latin1(path), latin1(name), stats, maps);
  if (!header) throw new DrydockError('ERR_BAD_PARAMETER', `${path} is a socket, which no archive can hold`);
  yield emitHeader(header);
  if (header.type === 'file') {
    yield* fileData(latin1(path), header.size);
    if (header.size % BLOCK !== 0) yield padding(header.size);
  }
  if (header.type === 'directory')
    yield* packTree(path, { overlay: false, prefix: latin1(`${name}/`), maps });
  else yield trailer();
}

/** This thread's own root, to come back to. */
let ownRoot: number | undefined;

/** Reads with the container's root as this thread's. */
class Reading implements Work {
  readonly #chunks: Generator<Buffer>;
  #credit = CREDIT;

  constructor(job: ArchiveJob & { op: 'read' }) {
    if (ownRoot === undefined) {
      ownRoot = openSync('/', constants.O_RDONLY | constants.O_DIRECTORY);
      unshare(CLONE_FS);
    }
    changeRoot(job.root);
    this.#chunks = job.path === '/' ? packTree('/', { overlay: false, maps: job.maps }) : pack(job);
  }

  take(message: ToArchive): boolean {
    if (message.type === 'more') this.#credit++;
    return this.run();
  }

  /** Sends what may be sent. */
  run(): boolean {
    for (; this.#credit > 0; this.#credit--) {
      const { value, done } = this.#chunks.next();
      if (done) return true;
      // What has memory of its own goes without being copied.
      const isWhole = value.length === value.buffer.byteLength;
      port.postMessage(
        { type: 'chunk', bytes: value } satisfies FromArchive,
        isWhole ? [value.buffer as ArrayBuffer] : [],
      );
    }
    return false;
  }

  close(): void {
    this.#chunks.return(undefined);
    returnToRoot(ownRoot!);
  }
}

/** Chunks that may be under way. */
const CREDIT = 4;

/** Puts an archive's entries below a folder of the root. */
class Relocated implements TarSink {
  readonly #target: LayerExtractor;
  readonly #job: ArchiveJob & { op: 'write' };
  readonly #rootFd: number;

  constructor(target: LayerExtractor, job: ArchiveJob & { op: 'write' }, rootFd: number) {
    this.#target = target;
    this.#job = job;
    this.#rootFd = rootFd;
  }

  entry(header: TarHeader): void {
    const { path, owner, replace } = this.#job;
    const name = `${latin1(path)}/${header.name}`;
    if (!replace) this.#refuseReplacement(name, header);
    this.#target.entry({
      ...header,
      ...owner,
      name,
      linkName: header.type === 'link' ? `${latin1(path)}/${header.linkName}` : header.linkName,
    });
  }

  #refuseReplacement(name: string, header: TarHeader): void {
    const fd = openInRoot(this.#rootFd, name.replace(/\/+$/, ''), O_PATH | constants.O_NOFOLLOW);
    if (fd < 0) return;
    try {
      const isFolder = statSync(`/proc/self/fd/${fd}`).isDirectory();
      if (isFolder === (header.type === 'directory')) return;
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        isFolder
          ? `cannot overwrite directory ${printable(name)} with non-directory`
          : `cannot overwrite non-directory ${printable(name)} with directory`,
      );
    } finally {
      closeSync(fd);
    }
  }

  data(bytes: Buffer, position: number): void {
    this.#target.data(bytes, position);
  }

  end(): void {
    this.#target.end();
  }
}

/** open(2); Node has no constant for it. */
const O_PATH = 0o10000000;

function printable(name: string): string {
  return JSON.stringify(Buffer.from(name, 'latin1').toString());
}

/** Writes what it is sent. */
class Writing implements Work {
  readonly #extractor: LayerExtractor;
  readonly #rootFd: number;
  readonly #reader: TarReader;

  constructor(job: ArchiveJob & { op: 'write' }) {
    this.#extractor = new LayerExtractor(job.root, 'none', { maps: job.maps });
    this.#rootFd = openSync(job.root, constants.O_RDONLY | constants.O_DIRECTORY);
    this.#reader = new TarReader(new Relocated(this.#extractor, job, this.#rootFd));
  }

  take(message: ToArchive): boolean {
    if (message.type === 'chunk') {
      const { bytes } = message;
      this.#reader.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
      port.postMessage({ type: 'taken', bytes } satisfies FromArchive, [bytes.buffer]);
    }
    if (message.type !== 'end') return false;
    this.#reader.finish();
    this.#extractor.finish();
    return true;
  }

  close(): void {
    this.#extractor.close();
    closeSync(this.#rootFd);
  }
}

let current: Work | undefined;

/** Does a part of the job, and closes it when it is over, well or not. */
function attempt(part: () => boolean): void {
  let answer: FromArchive | undefined;
  try {
    if (part()) answer = { type: 'end' };
  } catch (error) {
    answer = { type: 'failed', code: errorCode(error), message: errorMessage(error) };
  }
  if (!answer) return;
  current?.close();
  current = undefined;
  port.postMessage(answer);
}

port.on('message', (message: ArchiveJob | ToArchive) => {
  if ('op' in message)
    attempt(() => {
      if (message.op === 'write') {
        current = new Writing(message);
        return false;
      }
      const reading = new Reading(message);
      current = reading;
      return reading.run();
    });
  // What was said before the end of a job was known is of no use any more.
  else if (current) attempt(() => message.type === 'abort' || current!.take(message));
});
