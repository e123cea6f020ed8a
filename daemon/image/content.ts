/**
 * Blobs by their sha256 digest: layers as they came (compressed or not), configurations, manifests. A blob appears
 * under its name only when all of its bytes are there and hash to it.
 *
 * Large ones are synced later ({@link DelayedSync}): `fresh.json` names them before they get their names, and after a
 * crash of the machine those that it names are hashed again, and removed when they have not come to the disk whole.
 *
 * Layout: `sha256/HEX` for blobs, `ingest/` for those in the making. What is in `ingest/` after a crash is swept.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { access, type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Readable } from 'node:stream';
import { DrydockError, errorCode } from '#common/errors';
import type { Log } from '#common/log';
import { sweepTemporaries, syncFolder, temporaryName, writeJson } from '../store/durable.ts';
import { readRecord } from '../store/record-folder.ts';
import { DIGEST, record, type Shape, TEXT } from '../store/shape.ts';
import type { DelayedSync, Unsynced } from './delayed-sync.ts';

/** What names a blob. */
export interface Blob {
  digest: string;
  size: number;
}

/** The sha256 digest of bytes, in the form `sha256:HEX`. */
export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** The hexadecimal digits of a digest: what files and folders are called by. */
export function hexOf(digest: string): string {
  return digest.slice('sha256:'.length);
}

/** Maps a full disk to the coded error, and leaves all others. */
export function storageError(error: unknown): unknown {
  const code = errorCode(error);
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new DrydockError(
    'ERR_NO_SPACE',
    'the disk of the data root is full. Free some space (docker image prune, docker system df) and try again.',
    { cause: error },
  );
}

/** What is gathered for one write: streams bring a few KiB at a time. */
const WRITE_BYTES = 1 << 20;

/** A blob in the making. End it with commit() or abort(). */
export class BlobWriter {
  readonly #store: ContentStore;
  readonly #handle: FileHandle;
  readonly #path: string;
  readonly #hash: Hash = createHash('sha256');
  /** Bytes taken; those before `#written` are in the file or on their way there. */
  #size = 0;
  #written = 0;
  #buffer: Buffer = Buffer.allocUnsafeSlow(WRITE_BYTES);
  /** Filled while the other one is written. */
  #spare: Buffer | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(store: ContentStore, handle: FileHandle, path: string) {
    this.#store = store;
    this.#handle = handle;
    this.#path = path;
  }

  get size(): number {
    return this.#size;
  }

  /** The bytes are copied before the promise resolves. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let offset = 0; offset < bytes.length; ) {
      const at = this.#size - this.#written;
      const part = bytes.subarray(offset, offset + WRITE_BYTES - at);
      this.#buffer.set(part, at);
      this.#size += part.length;
      offset += part.length;
      if (at + part.length === WRITE_BYTES) await this.#flush();
    }
  }

  /** Begins to write what is gathered, when what was before it is in the file. */
  async #flush(): Promise<void> {
    await this.#writing;
    const buffer = this.#buffer;
    const bytes = buffer.subarray(0, this.#size - this.#written);
    this.#hash.update(bytes);
    this.#writing = this.#writeAll(bytes, this.#written);
    // Told by the next flush, or by the end.
    this.#writing.catch(() => {});
    this.#written = this.#size;
    this.#buffer = this.#spare ?? Buffer.allocUnsafeSlow(WRITE_BYTES);
    this.#spare = buffer;
  }

  async #writeAll(bytes: Buffer, position: number): Promise<void> {
    try {
      for (let offset = 0; offset < bytes.length; )
        offset += (await this.#handle.write(bytes, offset, undefined, position + offset)).bytesWritten;
    } catch (error) {
      throw storageError(error);
    }
  }

  /**
   * Gives the blob its name. @throws DrydockError ERR_DIGEST_MISMATCH when it isn't what was `expected`.
   * @param isSynced whether its bytes are on the disk when this resolves, or some time later
   */
  async commit(expected?: string, isSynced = false): Promise<Blob> {
    await this.#flush();
    const digest = `sha256:${this.#hash.digest('hex')}`;
    if (expected !== undefined && expected !== digest) {
      await this.abort();
      throw new DrydockError(
        'ERR_DIGEST_MISMATCH',
        `the content has the digest ${digest} instead of ${expected}: it was damaged or exchanged on its way. Fetch it again.`,
      );
    }
    try {
      await this.#writing;
      if (isSynced) await this.#handle.sync();
      else await this.#store.noteFresh(digest);
      await this.#handle.close();
      await rename(this.#path, this.#store.path(digest));
      if (isSynced) await syncFolder(this.#store.folder);
    } catch (error) {
      await this.abort();
      throw storageError(error);
    }
    return { digest, size: this.#size };
  }

  /** Leaves what has been written for {@link ContentStore.resume}. */
  async suspend(): Promise<void> {
    await this.#flush();
    await Promise.allSettled([this.#writing]);
    await this.#handle.close();
  }

  /** Takes what an earlier writer has left as written. */
  async adopt(): Promise<void> {
    const buffer = Buffer.allocUnsafe(1 << 20);
    for (;;) {
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, this.#size);
      if (bytesRead === 0) return;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.#size += bytesRead;
      this.#written = this.#size;
    }
  }

  async abort(): Promise<void> {
    await Promise.allSettled([this.#writing]);
    await this.#handle.close().catch(() => {});
    await rm(this.#path, { force: true });
  }
}

/** Which blobs, and layers without one, were not synced, and in which run of the machine that was. */
export interface FreshFile {
  bootId: string;
  digests: string[];
}

const FRESH_SHAPE: Shape = record({ bootId: TEXT, digests: { type: 'array', items: DIGEST } });

/** The folder of blobs. */
export class ContentStore implements Unsynced {
  readonly folder: string;
  readonly #ingest: string;
  readonly #freshPath: string;
  readonly #bootId: string;
  readonly #sync: DelayedSync;
  readonly #log: Log;
  readonly #fresh = new Set<string>();
  /** What had not come to the disk when the machine stopped. */
  readonly #lost = new Set<string>();
  #isFreshLost = false;
  #writing: Promise<void> = Promise.resolve();
  #nextWrite: Promise<void> | undefined;

  constructor(parts: { root: string; bootId: string; sync: DelayedSync; log: Log }) {
    this.folder = `${parts.root}/sha256`;
    this.#ingest = `${parts.root}/ingest`;
    this.#freshPath = `${parts.root}/fresh.json`;
    this.#bootId = parts.bootId;
    this.#sync = parts.sync;
    this.#log = parts.log;
  }

  /** Makes the folders, and removes what was in the making or not on the disk when the last daemon or machine ended. */
  async open(): Promise<void> {
    await rm(this.#ingest, { recursive: true, force: true });
    await mkdir(this.#ingest, { recursive: true, mode: 0o700 });
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    await sweepTemporaries(dirname(this.folder));
    // Damaged by the disk or by somebody: then any blob may be concerned.
    const found = await readRecord<FreshFile>(this.#freshPath, FRESH_SHAPE);
    const isDamaged = found !== undefined && 'damage' in found;
    this.#isFreshLost = isDamaged;
    const fresh = found && 'record' in found ? found.record : undefined;
    for (const digest of isDamaged ? await this.list() : (fresh?.digests ?? [])) {
      if (isDamaged || fresh?.bootId !== this.#bootId) await this.#removeDamaged(digest);
      this.#fresh.add(digest);
    }
    this.#sync.add(this);
    if (this.unsynced()) this.#sync.soon();
  }

  /** Whether a blob that is not here was lost with the machine's power, and not by anybody's doing. */
  isLost(digest: string): boolean {
    return this.#isFreshLost || this.#lost.has(digest);
  }

  async #removeDamaged(digest: string): Promise<void> {
    this.#lost.add(digest);
    if (!(await this.has(digest))) return;
    const hash = createHash('sha256');
    for await (const chunk of this.stream(digest)) hash.update(chunk as Buffer);
    if (`sha256:${hash.digest('hex')}` === digest) return;
    this.#log.warn({ digest }, 'removing a blob that was not on the disk when the machine stopped');
    await this.delete(digest);
  }

  get syncPath(): string {
    return this.folder;
  }

  unsynced(): (() => Promise<void>) | undefined {
    const waiting = [...this.#fresh];
    if (waiting.length === 0) return undefined;
    return async () => {
      for (const digest of waiting) this.#fresh.delete(digest);
      await this.#writeFresh();
    };
  }

  /** Notes a blob, or a layer that has none, that is about to get its name and is not synced. */
  async noteFresh(digest: string): Promise<void> {
    this.#fresh.add(digest);
    this.#sync.soon();
    await this.#writeFresh();
  }

  /**
   * On the disk when this resolves, so before the names of the blobs that it tells of: not every file system keeps
   * renames in different folders in order (btrfs does not). Those who wait for the same turn share a write.
   */
  #writeFresh(): Promise<void> {
    this.#nextWrite ??= this.#writing.then(() => {
      this.#nextWrite = undefined;
      const write = writeJson(this.#freshPath, { bootId: this.#bootId, digests: [...this.#fresh] });
      // A failure is told to those who wait for this one.
      this.#writing = write.catch(() => {});
      return write;
    });
    return this.#nextWrite;
  }

  /** Where the blob is, or would be. Digests come from manifests: they must have passed isDigest. */
  path(digest: string): string {
    return `${this.folder}/${hexOf(digest)}`;
  }

  async has(digest: string): Promise<boolean> {
    return access(this.path(digest)).then(
      () => true,
      () => false,
    );
  }

  async size(digest: string): Promise<number> {
    return (await stat(this.path(digest))).size;
  }

  /** The whole blob, for configurations and manifests. */
  async read(digest: string): Promise<Buffer> {
    return readFile(this.path(digest));
  }

  stream(digest: string): Readable {
    return createReadStream(this.path(digest), { highWaterMark: 1 << 20 });
  }

  async writer(): Promise<BlobWriter> {
    const path = `${this.#ingest}/${temporaryName()}`;
    return new BlobWriter(this, await open(path, 'wx', 0o600), path);
  }

  /** A writer of a blob with a known digest, which goes on where an interrupted one was suspended. */
  async resume(digest: string): Promise<BlobWriter> {
    const path = `${this.#ingest}/${hexOf(digest)}.part`;
    const flags = constants.O_RDWR | constants.O_CREAT;
    const writer = new BlobWriter(this, await open(path, flags, 0o600), path);
    await writer.adopt();
    return writer;
  }

  /** Stores bytes that are in memory. */
  async put(bytes: Uint8Array): Promise<Blob> {
    const digest = digestOf(bytes);
    if (await this.has(digest)) return { digest, size: bytes.length };
    const writer = await this.writer();
    await writer.write(bytes);
    return writer.commit(digest, true);
  }

  async delete(digest: string): Promise<void> {
    await rm(this.path(digest), { force: true });
  }

  /** The digests of all blobs. */
  async list(): Promise<string[]> {
    return (await readdir(this.folder)).map((hex) => `sha256:${hex}`);
  }
}
