/**
 * Archives of images (`docker load`): a tar of named files is spooled into the content store, then read as docker's
 * layout (`manifest.json`) or OCI's (`index.json`). Small files stay in memory; nothing is extracted by name, so names
 * can't lead anywhere.
 */
import type { Readable } from 'node:stream';
import { decompressor, detectCompression, MAGIC_BYTES, unsupportedCompression } from './compression.ts';
import { DOCUMENT_BYTES_MAX, parseDocument } from './config-file.ts';
import { type Blob, type BlobWriter, type ContentStore, hexOf } from './content.ts';
import { entryComponents } from './entry-path.ts';
import type { TarHeader } from './tar/header.ts';
import { badArchive, TAR_LIMITS, TarReader, type TarSink } from './tar/reader.ts';

/** Files of one image archive: layers, manifests and docker's legacy files. */
const ENTRIES_MAX = 50_000;
/** Files up to this size stay in memory, until together they have the second. */
const SMALL_BYTES_MAX = 64 << 10;
const MEMORY_BYTES_MAX = 64 << 20;

/** A stream of bytes, decompressed when it is compressed. Errors of the source end the result with them. */
export async function plainStream(source: Readable): Promise<AsyncIterable<Buffer>> {
  const iterator = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let head: Buffer = Buffer.alloc(0);
  while (head.length < MAGIC_BYTES) {
    const { value, done } = await iterator.next();
    if (done) break;
    head = Buffer.concat([head, value]);
  }
  async function* all(): AsyncGenerator<Buffer> {
    if (head.length > 0) yield head;
    for (;;) {
      const { value, done } = await iterator.next();
      if (done) return;
      yield value;
    }
  }
  const unsupported = unsupportedCompression(head);
  if (unsupported) throw badArchive(`it is compressed with ${unsupported}; use gzip, zstd or none`);
  const transform = decompressor(detectCompression(head));
  if (!transform) return all();
  const feed = async (): Promise<void> => {
    for await (const chunk of all()) {
      if (!transform.write(chunk)) await new Promise((resume) => transform.once('drain', resume));
    }
    transform.end();
  };
  feed().catch((error: Error) => transform.destroy(error));
  return transform as AsyncIterable<Buffer>;
}

/** A file of the archive: in memory or in the content store. */
type Spooled = { bytes: Buffer } | { blob: Blob };

/** The files of an archive by name. */
export class SpooledArchive {
  readonly #content: ContentStore;
  readonly #files = new Map<string, Spooled>();
  readonly #links = new Map<string, string>();

  constructor(content: ContentStore) {
    this.#content = content;
  }

  set(name: string, file: Spooled): void {
    this.#links.delete(name);
    this.#files.set(name, file);
  }

  link(name: string, target: string): void {
    this.#files.delete(name);
    this.#links.set(name, target);
  }

  /** Blobs that were spooled, used or not. */
  blobs(): Blob[] {
    return [...this.#files.values()].flatMap((file) => ('blob' in file ? [file.blob] : []));
  }

  has(name: string): boolean {
    return this.#find(name) !== undefined;
  }

  /** A JSON document of the archive. @throws DrydockError ERR_BAD_ARCHIVE when it is missing or too large. */
  async read(name: string): Promise<Buffer> {
    const file = this.#find(name);
    if (!file) throw badArchive(`the file ${JSON.stringify(name)}, which it refers to, is missing`);
    if ('bytes' in file) return file.bytes;
    if (file.blob.size > DOCUMENT_BYTES_MAX) throw badArchive(`${JSON.stringify(name)} is too large`);
    return this.#content.read(file.blob.digest);
  }

  /** A file as a blob. @throws DrydockError ERR_BAD_ARCHIVE when it is missing. */
  async blob(name: string): Promise<Blob> {
    const file = this.#find(name);
    if (!file) throw badArchive(`the file ${JSON.stringify(name)}, which it refers to, is missing`);
    return 'blob' in file ? file.blob : this.#content.put(file.bytes);
  }

  #find(name: string): Spooled | undefined {
    // Old archives share layers by symlinks; a chain of more than a few is no honest one.
    let path = entryComponents(name).join('/');
    for (let hops = 0; hops < 8; hops++) {
      const file = this.#files.get(path);
      if (file) return file;
      const target = this.#links.get(path);
      if (target === undefined) return undefined;
      path = target;
    }
    return undefined;
  }
}

/** Collects one file after the other; the work that must wait for the disk is done between chunks. */
class SpoolSink implements TarSink {
  readonly archive: SpooledArchive;
  readonly #content: ContentStore;
  #name: string | undefined;
  #parts: Buffer[] = [];
  #isLarge = false;
  #writer: BlobWriter | undefined;
  #memory = 0;
  #todo: (() => Promise<void>)[] = [];

  constructor(content: ContentStore) {
    this.#content = content;
    this.archive = new SpooledArchive(content);
  }

  entry(header: TarHeader): void {
    const name = entryComponents(header.name).join('/');
    this.#name = undefined;
    if (header.type === 'file') {
      this.#name = name;
      this.#parts = [];
      this.#isLarge = header.size > SMALL_BYTES_MAX || this.#memory + header.size > MEMORY_BYTES_MAX;
      if (!this.#isLarge) this.#memory += header.size;
    } else if (header.type === 'symlink' || header.type === 'link') {
      const base = header.type === 'symlink' ? name.split('/').slice(0, -1).join('/') : '';
      this.archive.link(name, entryComponents(`${base}/${header.linkName}`).join('/'));
    }
  }

  data(bytes: Buffer): void {
    if (this.#name === undefined) return;
    if (!this.#isLarge) {
      this.#parts.push(Buffer.from(bytes));
      return;
    }
    this.#todo.push(async () => {
      this.#writer ??= await this.#content.writer();
      await this.#writer.write(bytes);
    });
  }

  end(): void {
    const name = this.#name;
    if (name === undefined) return;
    if (!this.#isLarge) this.archive.set(name, { bytes: Buffer.concat(this.#parts) });
    else
      this.#todo.push(async () => {
        const writer = this.#writer ?? (await this.#content.writer());
        this.#writer = undefined;
        this.archive.set(name, { blob: await writer.commit() });
      });
  }

  /** Does what has been put off; the chunks' memory is free afterwards. */
  async settle(): Promise<void> {
    const todo = this.#todo;
    this.#todo = [];
    for (const step of todo) await step();
  }

  async abort(): Promise<void> {
    await this.#writer?.abort();
  }
}

/**
 * Reads an archive to its end. The caller owns the blobs of the result, also those that no image will use.
 * @throws DrydockError ERR_BAD_ARCHIVE, ERR_NO_SPACE
 */
export async function spoolArchive(source: Readable, content: ContentStore): Promise<SpooledArchive> {
  const sink = new SpoolSink(content);
  const reader = new TarReader(sink, { ...TAR_LIMITS, entriesMax: ENTRIES_MAX });
  try {
    for await (const chunk of await plainStream(source)) {
      reader.push(chunk);
      await sink.settle();
    }
    reader.finish();
  } catch (error) {
    await sink.abort();
    for (const blob of sink.archive.blobs()) await content.delete(blob.digest);
    throw error;
  }
  return sink.archive;
}

/** An image of an archive, its parts still by name. */
export interface ArchivedImage {
  configName: string;
  layerNames: string[];
  /** As written in the archive. */
  names: string[];
}

const blobName = (digest: unknown): string => {
  if (typeof digest !== 'string' || !/^sha256:[a-f0-9]{64}$/.test(digest))
    throw badArchive(`a manifest has the bad digest ${JSON.stringify(digest)}`);
  return `blobs/sha256/${hexOf(digest)}`;
};

/** The images of an archive in docker's or OCI's layout. @throws DrydockError ERR_BAD_ARCHIVE */
export async function archivedImages(
  archive: SpooledArchive,
  selects: (platform: { os?: unknown; architecture?: unknown }) => boolean,
): Promise<ArchivedImage[]> {
  if (archive.has('manifest.json')) return dockerImages(await archive.read('manifest.json'));
  if (archive.has('index.json')) return ociImages(archive, await archive.read('index.json'), selects);
  throw badArchive(
    'it has neither manifest.json (docker save) nor index.json (OCI image layout). For a plain root file system use docker import',
  );
}

function dockerImages(bytes: Buffer): ArchivedImage[] {
  const { images } = parseDocument(Buffer.from(`{"images":${bytes.toString('utf8')}}`), 'manifest.json');
  const isNames = (value: unknown): value is string[] =>
    Array.isArray(value) && value.every((name) => typeof name === 'string');
  if (!Array.isArray(images)) throw badArchive('its manifest.json is not a list');
  return images.map((image: Record<string, unknown> | null) => {
    const { Config, RepoTags, Layers } = image ?? {};
    if (typeof Config !== 'string' || !isNames(Layers ?? []) || !isNames(RepoTags ?? []))
      throw badArchive('its manifest.json has a bad entry');
    return {
      configName: Config,
      layerNames: (Layers ?? []) as string[],
      names: (RepoTags ?? []) as string[],
    };
  });
}

interface Descriptor {
  digest?: unknown;
  platform?: { os?: unknown; architecture?: unknown };
  annotations?: Record<string, unknown>;
}

const descriptors = (value: unknown, what: string): Descriptor[] => {
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'object' && item !== null))
    throw badArchive(`its ${what} has no list of descriptors`);
  return value;
};

async function ociImages(
  archive: SpooledArchive,
  bytes: Buffer,
  selects: (platform: { os?: unknown; architecture?: unknown }) => boolean,
): Promise<ArchivedImage[]> {
  const images: ArchivedImage[] = [];
  for (const descriptor of descriptors(parseDocument(bytes, 'index.json').manifests, 'index.json')) {
    let manifest = parseDocument(await archive.read(blobName(descriptor.digest)), 'manifest');
    if (manifest.manifests !== undefined) {
      const candidates = descriptors(manifest.manifests, 'index');
      const chosen = candidates.find((each) => each.platform && selects(each.platform)) ?? candidates[0];
      if (!chosen) throw badArchive('it has an index without manifests');
      manifest = parseDocument(await archive.read(blobName(chosen.digest)), 'manifest');
    }
    const config = descriptors([manifest.config], 'manifest')[0]!;
    const layers = descriptors(manifest.layers ?? [], 'manifest');
    images.push({
      configName: blobName(config.digest),
      layerNames: layers.map((layer) => blobName(layer.digest)),
      names: annotatedNames(descriptor.annotations ?? {}),
    });
  }
  return images;
}

/** containerd and docker write the whole name; others write only the tag, or whatever they think is a name. */
function annotatedNames(annotations: Record<string, unknown>): string[] {
  const whole = annotations['io.containerd.image.name'];
  if (typeof whole === 'string') return [whole];
  const name = annotations['org.opencontainers.image.ref.name'];
  return typeof name === 'string' && /[/:]/.test(name) ? [name] : [];
}
