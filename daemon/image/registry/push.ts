/**
 * `docker push`: layers that the registry has not got, several at a time, the configuration, then the manifest. An
 * image that was pulled is pushed by the very same bytes; layers made here are compressed on their way.
 */
import { createHash } from 'node:crypto';
import { pipeline, Readable, Transform } from 'node:stream';
import { createGzip } from 'node:zlib';
import type { Clock } from '#common/clock';
import { detectCompression, MAGIC_BYTES } from '../compression.ts';
import type { Library } from '../library.ts';
import type { ImageRecord, LayerRecord } from '../records.ts';
import { formatNormal, type Reference } from '../reference.ts';
import type { Progress } from '../store.ts';
import type { RepositoryClient } from './client.ts';
import { forEachLimited } from './limit.ts';
import { makeManifest, type PushedLayer, parseManifest } from './manifest.ts';

const PROGRESS_MS = 100;
/** Layers are compressed once and pulled often, but a push waits for it: zlib's fast end, as most builders choose. */
const GZIP = { level: 3, memLevel: 9, chunkSize: 256 << 10 };

export interface PushParts {
  client: RepositoryClient;
  /** Repositories of the same registry that have a layer, as far as is known here. */
  sources: (diffId: string) => string[];
  library: Library;
  clock: Clock;
  progress: (line: Progress) => void;
  signal: AbortSignal;
  /** Layers at a time. */
  uploadsMax: number;
}

const shortOf = (digest: string): string => digest.slice('sha256:'.length, 'sha256:'.length + 12);

/** Pushes the image under one tag. */
export async function pushImage(parts: PushParts, id: string, reference: Reference): Promise<void> {
  const { client, library, progress } = parts;
  const lease = library.openLease(library.digestsOf(library.parts.records.get(id)!));
  try {
    const record = library.parts.records.get(id)!;
    for (const layer of record.layers)
      progress({ status: 'Preparing', progressDetail: {}, id: shortOf(layer.diffId) });
    const pushed: PushedLayer[] = [];
    await forEachLimited(record.layers, parts.uploadsMax, async (layer, index) => {
      pushed[index] = await pushLayer(parts, layer);
    });
    await rememberCompressed(library, id, pushed);
    const config = { digest: id, size: await library.parts.content.size(id) };
    if (!(await client.hasBlob(id)))
      await client.upload(library.parts.content.stream(id), () => id, parts.signal);
    const { bytes, mediaType } =
      (await pulledManifest(library, record, pushed)) ?? makeManifest(config, pushed);
    await client.putManifest(reference.tag!, bytes, mediaType);
    const digest = (await library.parts.content.put(bytes)).digest;
    lease.add(digest);
    await library.setName(id, formatNormal({ ...reference, tag: undefined, digest }));
    progress({ status: `${reference.tag}: digest: ${digest} size: ${bytes.length}` });
    progress({ aux: { Tag: reference.tag, Digest: digest, Size: bytes.length } });
  } finally {
    await library.release(lease);
  }
}

/** The manifest by which the image came, if what was pushed is what it names. */
async function pulledManifest(
  library: Library,
  record: ImageRecord,
  pushed: readonly PushedLayer[],
): Promise<{ bytes: Buffer; mediaType: string } | undefined> {
  if (!record.manifest || !(await library.parts.content.has(record.manifest.digest))) return undefined;
  const bytes = await library.parts.content.read(record.manifest.digest);
  const manifest = parseManifest(bytes, record.manifest.mediaType);
  const isSame =
    manifest.kind === 'image' &&
    manifest.layers.length === pushed.length &&
    manifest.layers.every((layer, index) => layer.digest === pushed[index]!.digest);
  return isSame ? { bytes, mediaType: manifest.mediaType } : undefined;
}

/** Keeps the digests of what was compressed on the way, so that the next push finds it there. */
async function rememberCompressed(
  library: Library,
  id: string,
  pushed: readonly PushedLayer[],
): Promise<void> {
  const record = library.parts.records.get(id);
  if (!record) return;
  const layers = record.layers.map((layer, index) => {
    const { digest, size } = pushed[index]!;
    return digest === layer.blob.digest ? layer : { ...layer, gzip: { digest, size } };
  });
  await library.parts.records.put({ ...record, layers });
}

async function pushLayer(parts: PushParts, layer: LayerRecord): Promise<PushedLayer> {
  const { client, library, progress, signal } = parts;
  const id = shortOf(layer.diffId);
  const compression = await compressionOf(library, layer);
  const known = compression === 'none' ? layer.gzip : layer.blob;
  const form = compression === 'zstd' ? 'zstd' : 'gzip';
  if (known && (await client.hasBlob(known.digest))) {
    progress({ status: 'Layer already exists', progressDetail: {}, id });
    return { ...known, compression: form };
  }
  for (const source of known ? parts.sources(layer.diffId) : []) {
    if (!(await client.mountBlob(known!.digest, source))) continue;
    progress({ status: `Mounted from ${source}`, progressDetail: {}, id });
    return { ...known!, compression: form };
  }
  const counted = counter(parts, id, layer.blob.size);
  const source = Readable.from(library.layerBlob(layer), { objectMode: false });
  const passes = compression === 'none' ? [counted, createGzip(GZIP)] : [counted];
  // An error of any of them ends the last one with it, which the upload reads.
  pipeline([source, ...passes], () => {});
  const compressed = passes.at(-1)!;
  const hash = createHash('sha256');
  let size = 0;
  const body = Readable.from(
    (async function* () {
      for await (const chunk of compressed as AsyncIterable<Buffer>) {
        hash.update(chunk);
        size += chunk.length;
        yield chunk;
      }
    })(),
    { objectMode: false },
  );
  let digest = '';
  await client.upload(
    body,
    () => {
      digest = `sha256:${hash.digest('hex')}`;
      return digest;
    },
    signal,
  );
  progress({ status: 'Pushed', progressDetail: {}, id });
  return { digest, size, compression: form };
}

async function compressionOf(library: Library, layer: LayerRecord): Promise<'none' | 'gzip' | 'zstd'> {
  for await (const chunk of library.layerBlob(layer))
    return detectCompression(chunk.subarray(0, MAGIC_BYTES));
  return 'none';
}

/** Passes bytes through and tells how many. */
function counter({ progress, clock }: PushParts, id: string, total: number): Transform {
  let current = 0;
  let toldMs = Number.NEGATIVE_INFINITY;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      current += chunk.length;
      if (clock.now() - toldMs >= PROGRESS_MS) {
        toldMs = clock.now();
        progress({ status: 'Pushing', progressDetail: { current, total }, id });
      }
      done(null, chunk);
    },
  });
}
