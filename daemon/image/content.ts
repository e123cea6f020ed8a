/**
 * Blobs by their sha256 digest: layers as they came (compressed or not), configurations, manifests. A blob appears
 * under its name only when all of its bytes are on the disk and hash to it.
 *
 * Layout: `sha256/HEX` for blobs, `ingest/` for those in the making. What is in `ingest/` after a crash is swept.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { access, type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { DrydockError, errorCode } from '#common/errors';
import { syncFolder, temporaryName } from '../store/durable.ts';

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

/** A blob in the making. End it with commit() or abort(). */
export class BlobWriter {
  readonly #store: ContentStore;
  readonly #handle: FileHandle;
  readonly #path: string;
  readonly #hash: Hash = createHash('sha256');
  #size = 0;

  constructor(store: ContentStore, handle: FileHandle, path: string) {
    this.#store = store;
    this.#handle = handle;
    this.#path = path;
  }

  get size(): number {
    return this.#size;
  }

  /** The bytes are copied or written before the promise resolves. */
  async write(bytes: Uint8Array): Promise<void> {
    const position = this.#size;
    this.#hash.update(bytes);
    this.#size += bytes.length;
    try {
      for (let offset = 0; offset < bytes.length; )
        offset += (await this.#handle.write(bytes, offset, undefined, position + offset)).bytesWritten;
    } catch (error) {
      throw storageError(error);
    }
  }

  /** Gives the blob its name. @throws DrydockError ERR_DIGEST_MISMATCH when it isn't what was `expected`. */
  async commit(expected?: string): Promise<Blob> {
    const digest = `sha256:${this.#hash.digest('hex')}`;
    if (expected !== undefined && expected !== digest) {
      await this.abort();
      throw new DrydockError(
        'ERR_DIGEST_MISMATCH',
        `the content has the digest ${digest} instead of ${expected}: it was damaged or exchanged on its way. Fetch it again.`,
      );
    }
    try {
      await this.#handle.sync();
      await this.#handle.close();
      await rename(this.#path, this.#store.path(digest));
      await syncFolder(this.#store.folder);
    } catch (error) {
      await this.abort();
      throw storageError(error);
    }
    return { digest, size: this.#size };
  }

  /** Leaves what has been written for {@link ContentStore.resume}. */
  async suspend(): Promise<void> {
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
    }
  }

  async abort(): Promise<void> {
    await this.#handle.close().catch(() => {});
    await rm(this.#path, { force: true });
  }
}

/** The folder of blobs. */
export class ContentStore {
  readonly folder: string;
  readonly #ingest: string;

  constructor(root: string) {
    this.folder = `${root}/sha256`;
    this.#ingest = `${root}/ingest`;
  }

  /** Makes the folders and removes what was in the making when the last daemon ended. */
  async open(): Promise<void> {
    await rm(this.#ingest, { recursive: true, force: true });
    await mkdir(this.#ingest, { recursive: true, mode: 0o700 });
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
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
    return writer.commit(digest);
  }

  async delete(digest: string): Promise<void> {
    await rm(this.path(digest), { force: true });
  }

  /** The digests of all blobs. */
  async list(): Promise<string[]> {
    return (await readdir(this.folder)).map((hex) => `sha256:${hex}`);
  }
}
