/**
 * The thread behind `docker cp` and `docker export`. A container that runs can change its tree while we walk it, so no look at
 * a path is worth anything by the time it is used. Reading therefore happens with the container's root as this thread's
 * root: whatever a path has become, it leads to no file of the host. Writing opens every folder by openat2 within the
 * root (daemon/image/extract.ts).
 *
 * Messages: the job; then chunks and an end, each answered by `more` when it was taken, so that neither side runs ahead.
 */
import '#common/small-heap';
import { closeSync, constants, lstatSync, openSync, statSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { assert, DrydockError, errorCode, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { openInRoot } from '#common/native/layer-fs';
import { CLONE_FS, changeRoot, unshare } from '#common/native/namespace';
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
  | { type: 'more'; bytes: Uint8Array<ArrayBuffer> }
  | { type: 'end' }
  | { type: 'failed'; code: string | undefined; message: string };

/** From the daemon. */
export type ToArchive =
  | { type: 'chunk'; bytes: Uint8Array<ArrayBuffer> }
  | { type: 'end' }
  | { type: 'more' };

assert(parentPort, 'the archive worker is a worker thread');
const port = parentPort;

function send(message: FromArchive): void {
  port.postMessage(message);
}

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

async function read(job: ArchiveJob & { op: 'read' }): Promise<void> {
  unshare(CLONE_FS);
  changeRoot(job.root);
  let wake = (): void => {};
  let credit = CREDIT;
  port.on('message', () => {
    credit++;
    wake();
  });
  const whole = job.path === '/';
  for (const bytes of whole ? packTree('/', { overlay: false, maps: job.maps }) : pack(job)) {
    if (credit === 0)
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    credit--;
    send({ type: 'chunk', bytes });
  }
  send({ type: 'end' });
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

function write(job: ArchiveJob & { op: 'write' }): void {
  const extractor = new LayerExtractor(job.root, 'none', { maps: job.maps });
  const rootFd = openSync(job.root, constants.O_RDONLY | constants.O_DIRECTORY);
  const reader = new TarReader(new Relocated(extractor, job, rootFd));
  port.on('message', (message: ToArchive) => {
    attempt(() => {
      if (message.type === 'chunk') {
        const { bytes } = message;
        reader.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
        port.postMessage({ type: 'more', bytes } satisfies FromArchive, [bytes.buffer]);
      }
      if (message.type === 'end') {
        reader.finish();
        extractor.finish();
        extractor.close();
        closeSync(rootFd);
        send({ type: 'end' });
        port.close();
      }
    });
  });
}

function fail(error: unknown): void {
  send({ type: 'failed', code: errorCode(error), message: errorMessage(error) });
  port.close();
}

function attempt(work: () => void): void {
  try {
    work();
  } catch (error) {
    fail(error);
  }
}

// What follows the job waits until its work listens, within this turn.
port.once('message', (job: ArchiveJob) => {
  if (job.op === 'read') read(job).then(() => port.close(), fail);
  else attempt(() => write(job));
});
