/**
 * The entry of {@link FileWorkers}' threads. Unpacking reads an archive, decompresses it, hashes what comes out (the
 * layer's diff id) and extracts it; copying walks files and puts them into a tree by the same extractor. One message
 * in, one out; errors cross as code and text.
 */
import '#common/small-heap';
import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { errorCode, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { type ByteString, syncFileSystem } from '#common/native/layer-fs';
import { errnoName } from '#common/native/libc';
import { type Compression, decompressor } from './compression.ts';
import { entryComponents } from './entry-path.ts';
import { extractionError, LayerExtractor, type WhiteoutForm } from './extract.ts';
import { type HostFiles, hostFiles } from './host-tree.ts';
import { modeAfter } from './mode.ts';
import { fileData, headerOf, type PackSource, packTree } from './pack.ts';
import { emitHeader, type TarHeader } from './tar/header.ts';
import { badArchive, TarReader, type TarSink } from './tar/reader.ts';

export interface UnpackJob {
  kind: 'unpack';
  blobPath: string;
  compression: Compression;
  targetPath: string;
  whiteouts: WhiteoutForm;
  bytesMax: number;
  /** Digest of the file, when it is known: of an uncompressed one it is the result's. */
  digest?: string;
  /** Folder inside the target below which all entries go; a byte string without slashes at its ends. */
  prefix: ByteString;
}

/** Makes a layer of files that are on this machine. */
export interface MakeJob {
  kind: 'make';
  source: PackSource | HostFiles;
  targetPath: string;
  whiteouts: WhiteoutForm;
  bytesMax: number;
}

/** A file or folder to copy. */
export interface CopyItem {
  /** Absolute path of the source, a byte string. Not followed when it is a symlink. */
  source: ByteString;
  /** Path inside the target, a byte string without a leading slash; for a folder it is the folder itself. */
  target: ByteString;
  /** Of a folder only the folder itself, without what is in it. */
  isShallow?: boolean;
}

/** Copies are owned by `owner`, and have `mode` when it is given: octal, or symbolic as of chmod(1). */
export interface CopyJob {
  kind: 'copy';
  items: CopyItem[];
  /** Sources below the items that stay out, as the items name them. */
  skip?: readonly ByteString[];
  /** Folders inside the target that must be there, whether or not something is copied into them. */
  folders: ByteString[];
  targetPath: string;
  owner: { uid: number; gid: number };
  mode: string | undefined;
}

export interface HashJob {
  kind: 'hash';
  items: CopyItem[];
  skip?: readonly ByteString[];
}

/** Writes everything of the file system that holds a path to its disk. */
export interface SyncJob {
  kind: 'sync';
  path: string;
}

export type FileJob = UnpackJob | MakeJob | CopyJob | HashJob | SyncJob;

/** What is sent to a thread. */
export interface FileOrder {
  job: FileJob;
  /** Becomes 1, in shared memory, when nobody wants the result any more. */
  stop: Int32Array;
}

export interface UnpackResult {
  diffId: string;
  bytes: number;
  entries: number;
  tarBytes: number;
}

export interface FileJobResult {
  unpacked?: UnpackResult;
  digest?: string;
  error?: { code: string | undefined; message: string };
}

const maps = workerData as UserMaps | undefined;
const READ_BYTES = 1 << 20;
let stop: Int32Array | undefined;

/** Ends a job that nobody wants any more. Its thread can't be ended instead: that would leave its files open. */
function throwIfStopped(): void {
  if (stop && Atomics.load(stop, 0) === 1)
    throw new Error('the work was given up, since whoever asked for it has gone');
}

const SET_ID_BITS = 0o6000;

async function forEachChunk(job: UnpackJob, take: (chunk: Buffer) => void): Promise<void> {
  const transform = decompressor(job.compression);
  const fd = openSync(job.blobPath, 'r');
  // One buffer for all: as many as the file has would be much memory until they are collected.
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  let position = 0;
  const read = (): Buffer => {
    const chunk = buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, position));
    position += chunk.length;
    return chunk;
  };
  try {
    if (!transform) {
      for (let chunk = read(); chunk.length > 0; chunk = read()) take(chunk);
      return;
    }
    const feed = async (): Promise<void> => {
      // Destroyed: the archive was refused, and the file is closed.
      while (!transform.destroyed) {
        const chunk = read();
        if (chunk.length === 0) {
          transform.end();
          return;
        }
        await new Promise((taken) => transform.write(chunk, taken));
      }
    };
    feed().catch((error: Error) => transform.destroy(error));
    for await (const chunk of transform) take(chunk as Buffer);
  } finally {
    closeSync(fd);
  }
}

/** Puts all names, and what hard links name, below a folder. */
function below(prefix: ByteString, sink: TarSink): TarSink {
  if (prefix === '') return sink;
  return {
    entry: (header) =>
      sink.entry({
        ...header,
        // Cleaned first, so that no .. of the archive leads out of the prefix.
        name: [prefix, ...entryComponents(header.name)].join('/'),
        linkName:
          header.type === 'link' ? [prefix, ...entryComponents(header.linkName)].join('/') : header.linkName,
      }),
    data: (bytes, position) => sink.data(bytes, position),
    end: () => sink.end(),
  };
}

async function unpack(job: UnpackJob): Promise<UnpackResult> {
  const known = job.compression === 'none' ? job.digest : undefined;
  const hash = createHash('sha256');
  const extractor = new LayerExtractor(job.targetPath, job.whiteouts, { bytesMax: job.bytesMax, maps });
  try {
    const reader = new TarReader(below(job.prefix, extractor));
    let tarBytes = 0;
    let trailing = 0;
    await forEachChunk(job, (chunk) => {
      throwIfStopped();
      if (known === undefined) hash.update(chunk);
      tarBytes += chunk.length;
      if (reader.done) trailing += chunk.length;
      // Padding after the end belongs to the digest, but a compressed one could go on for ever.
      if (trailing > job.bytesMax) throw badArchive('it goes on after its end');
      reader.push(chunk);
    });
    reader.finish();
    const { bytes, entries } = extractor.finish();
    return { diffId: known ?? `sha256:${hash.digest('hex')}`, bytes, entries, tarBytes };
  } finally {
    extractor.close();
  }
}

/**
 * The layer's digest is that of the archive which {@link packTree} makes of its folder: so the archive itself need not
 * be kept. With overlayfs that is the same as what the folder is made of; other drivers keep deletions elsewhere in it.
 */
function make(job: MakeJob): UnpackResult {
  const extractor = new LayerExtractor(job.targetPath, job.whiteouts, { bytesMax: job.bytesMax, maps });
  const hash = createHash('sha256');
  let tarBytes = 0;
  const count = (chunk: Buffer): void => {
    hash.update(chunk);
    tarBytes += chunk.length;
  };
  try {
    const { source } = job;
    const isOverlay = job.whiteouts === 'overlay';
    const reader = new TarReader(extractor);
    for (const chunk of 'nodes' in source ? hostFiles(source) : packTree(source.folder, source.options)) {
      throwIfStopped();
      if (isOverlay) count(chunk);
      reader.push(chunk);
    }
    reader.finish();
    const { bytes, entries } = extractor.finish();
    if (!isOverlay) for (const chunk of packTree(job.targetPath, { overlay: false, maps })) count(chunk);
    return { diffId: `sha256:${hash.digest('hex')}`, tarBytes, bytes, entries };
  } finally {
    extractor.close();
  }
}

/**
 * The items with all that is below them: where each comes from, and its header under its new name. Further names of a
 * file that was there already are links to the first, as they are in the source.
 */
function* walk(
  items: Iterable<CopyItem>,
  skip: ReadonlySet<ByteString>,
  firstNames: Map<bigint, ByteString> = new Map(),
): Generator<{ path: ByteString; header: TarHeader }> {
  for (const { source, target, isShallow } of items) {
    throwIfStopped();
    if (skip.has(source)) continue;
    const path = Buffer.from(source, 'latin1');
    const stats = lstatSync(path, { bigint: true });
    const header = headerOf(source, target, stats, maps);
    if (!header) continue;
    const first = stats.isDirectory() || stats.nlink === 1n ? undefined : firstNames.get(stats.ino);
    if (first !== undefined) {
      yield {
        path: source,
        header: { ...header, type: 'link', linkName: first, size: 0, xattrs: new Map() },
      };
      continue;
    }
    if (stats.nlink > 1n) firstNames.set(stats.ino, target);
    yield { path: source, header };
    if (header.type !== 'directory' || isShallow) continue;
    const names = readdirSync(path, { encoding: 'latin1' }).sort();
    yield* walk(childrenOf(source, target, names), skip, firstNames);
  }
}

/** One by one: a folder may have 100,000. */
function* childrenOf(
  source: ByteString,
  target: ByteString,
  names: readonly ByteString[],
): Generator<CopyItem> {
  for (const name of names)
    yield { source: `${source}/${name}`, target: target === '' ? name : `${target}/${name}` };
}

function copy(job: CopyJob): void {
  const extractor = new LayerExtractor(job.targetPath, 'none', {
    impliedOwner: job.owner,
    keepFolders: true,
    maps,
  });
  try {
    for (const folder of job.folders) extractor.folder(folder);
    for (const { path, header } of walk(job.items, new Set(job.skip))) {
      Object.assign(header, job.owner);
      // Giving a file to an owner takes these bits away, in dockerd's classic builder as everywhere.
      if (header.type === 'file') header.mode &= ~SET_ID_BITS;
      if (job.mode !== undefined && header.type !== 'symlink')
        header.mode = modeAfter(job.mode, header.mode, header.type === 'directory');
      extractor.entry(header);
      if (header.type === 'file') {
        let position = 0;
        for (const chunk of fileData(path, header.size)) {
          throwIfStopped();
          extractor.data(chunk, position);
          position += chunk.length;
        }
      }
      extractor.end();
    }
    extractor.finish();
  } finally {
    extractor.close();
  }
}

function hash(job: HashJob): string {
  const digest = createHash('sha256');
  for (const { path, header } of walk(job.items, new Set(job.skip))) {
    // As docker: a file that was merely touched or has another owner in the context is the same.
    digest.update(emitHeader({ ...header, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanoseconds: 0 }));
    if (header.type === 'file') for (const chunk of fileData(path, header.size)) digest.update(chunk);
  }
  return digest.digest('hex');
}

function sync({ path }: SyncJob): void {
  const fd = openSync(path, 'r');
  const done = syncFileSystem(fd);
  closeSync(fd);
  if (done < 0) throw new Error(`syncfs ${path}: ${errnoName(-done)}`);
}

async function run(job: FileJob): Promise<FileJobResult> {
  try {
    if (job.kind === 'unpack') return { unpacked: await unpack(job) };
    if (job.kind === 'make') return { unpacked: make(job) };
    if (job.kind === 'hash') return { digest: hash(job) };
    if (job.kind === 'sync') sync(job);
    else copy(job);
    return {};
  } catch (reason) {
    const error = extractionError(reason);
    return { error: { code: errorCode(error), message: errorMessage(error) } };
  }
}

parentPort?.on('message', (order: FileOrder) => {
  const { job } = order;
  stop = order.stop;
  void run(job).then((result) => parentPort!.postMessage(result));
});
