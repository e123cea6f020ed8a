/**
 * `docker pull`: the manifest for a platform, its configuration, and its layers, several at a time. Every byte is
 * verified before it counts. A download that breaks off goes on where it was, in this pull or in the next one.
 */
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import { DOCUMENT_BYTES_MAX, parseConfigFile } from '../config-file.ts';
import type { Blob } from '../content.ts';
import { LAYERS_MAX } from '../layers.ts';
import type { Lease, Library } from '../library.ts';
import type { Platform } from '../platform.ts';
import type { LayerRecord } from '../records.ts';
import { formatFamiliar, formatNormal, type Reference } from '../reference.ts';
import type { Progress } from '../store.ts';
import type { RepositoryClient } from './client.ts';
import { forEachLimited } from './limit.ts';
import { chooseManifest, type Descriptor, type Manifest, parseManifest } from './manifest.ts';
import { readBody, TransportError } from './transport.ts';

const RETRY_MS = 1000;
/** Progress of one layer is told this often at most. */
const PROGRESS_MS = 100;
/** An index may name an index, and that is all that is known to occur. */
const INDEX_DEPTH_MAX = 2;

export interface PullParts {
  client: RepositoryClient;
  library: Library;
  clock: Clock;
  platform: Platform;
  progress: (line: Progress) => void;
  signal: AbortSignal;
  limits: { downloadsMax: number; downloadAttemptsMax: number };
}

const shortOf = (digest: string): string => digest.slice('sha256:'.length, 'sha256:'.length + 12);

/** Pulls one image. @throws DrydockError; when it was interrupted, what was verified is kept for the next attempt */
export async function pullImage(parts: PullParts, reference: Reference): Promise<string> {
  const { client, library, progress, signal } = parts;
  const wanted = reference.digest ?? reference.tag!;
  const top = await client.manifest(wanted, signal);
  progress({ status: `Pulling from ${reference.path}`, id: wanted });
  const pull = async (lease: Lease): Promise<string> => {
    const { manifest, bytes, digest } = await resolveIndex(
      parts,
      parseManifest(top.bytes, top.contentType),
      top,
    );
    const stored = await library.parts.content.put(bytes);
    lease.add(stored.digest);
    lease.add(manifest.config.digest);
    const configBytes = await fetchConfig(parts, manifest.config);
    const file = parseConfigFile(configBytes);
    const diffIds = file.rootfs.diff_ids;
    if (diffIds.length !== manifest.layers.length || diffIds.length > LAYERS_MAX)
      throw new DrydockError(
        'ERR_BAD_MANIFEST',
        `the image ${digest} has ${manifest.layers.length} layers and ${diffIds.length} diff ids (limit ${LAYERS_MAX})`,
      );
    const layers = await pullLayers(parts, manifest.layers, diffIds, lease);
    const record = await library.addImage(configBytes, layers, lease, {
      manifest: { ...stored, mediaType: manifest.mediaType },
    });
    const changed = await nameImage(library, record.id, reference, top.digest);
    progress({ status: `Digest: ${top.digest}` });
    const name = formatFamiliar(reference);
    progress({
      status: changed
        ? `Status: Downloaded newer image for ${name}`
        : `Status: Image is up to date for ${name}`,
    });
    return record.id;
  };
  return library.lease(pull, (error) => {
    const isInterruption = error instanceof TransportError && error.temporary;
    return isInterruption || signal.aborted;
  });
}

async function nameImage(
  library: Library,
  id: string,
  reference: Reference,
  digest: string,
): Promise<boolean> {
  const names = [formatNormal({ ...reference, tag: undefined, digest })];
  if (reference.digest === undefined) names.push(formatNormal(reference));
  let changed = false;
  for (const name of names) {
    if (library.parts.records.resolve(name) === id) continue;
    changed = true;
    await library.setName(id, name);
  }
  return changed;
}

async function resolveIndex(
  { client, platform, signal }: PullParts,
  manifest: Manifest,
  fetched: { bytes: Buffer; digest: string },
): Promise<{ manifest: Extract<Manifest, { kind: 'image' }>; bytes: Buffer; digest: string }> {
  for (let depth = 0; manifest.kind === 'index'; depth++) {
    if (depth === INDEX_DEPTH_MAX)
      throw new DrydockError('ERR_BAD_MANIFEST', 'the index only leads to further indexes');
    const next = await client.manifest(chooseManifest(manifest.manifests, platform).digest, signal);
    manifest = parseManifest(next.bytes, next.contentType);
    fetched = next;
  }
  return { manifest, bytes: fetched.bytes, digest: fetched.digest };
}

async function fetchConfig({ client, library, signal }: PullParts, config: Descriptor): Promise<Buffer> {
  const { content } = library.parts;
  if (await content.has(config.digest)) return content.read(config.digest);
  const bytes = await readBody(await client.blob(config.digest, 0, signal), DOCUMENT_BYTES_MAX);
  const writer = await content.writer();
  await writer.write(bytes);
  await writer.commit(config.digest);
  return bytes;
}

async function pullLayers(
  parts: PullParts,
  descriptors: Descriptor[],
  diffIds: string[],
  lease: Lease,
): Promise<LayerRecord[]> {
  const { library, progress } = parts;
  for (const { digest } of descriptors)
    progress({ status: 'Pulling fs layer', progressDetail: {}, id: shortOf(digest) });
  const layers: LayerRecord[] = [];
  const downloads = new Map<string, Promise<Blob>>();
  await forEachLimited(descriptors, parts.limits.downloadsMax, async (descriptor, index) => {
    const id = shortOf(descriptor.digest);
    const diffId = diffIds[index]!;
    lease.add(diffId).add(descriptor.digest);
    const known = library.recordedLayer(diffId);
    if (known && library.parts.layers.get(diffId)) {
      layers[index] = known;
      progress({ status: 'Already exists', progressDetail: {}, id });
      return;
    }
    // The same blob may be several of an image's layers (empty ones are).
    const download = downloads.get(descriptor.digest) ?? downloadBlob(parts, descriptor, lease);
    downloads.set(descriptor.digest, download);
    const blob = await download;
    progress({ status: 'Extracting', progressDetail: { current: 0, total: blob.size }, id });
    layers[index] = await library.unpackLayer(blob, diffId, lease);
    progress({ status: 'Pull complete', progressDetail: {}, id });
  });
  return layers;
}

/** Downloads a blob, again and again from where it broke off. */
async function downloadBlob(parts: PullParts, descriptor: Descriptor, lease: Lease): Promise<Blob> {
  const { content } = parts.library.parts;
  lease.add(descriptor.digest);
  if (await content.has(descriptor.digest)) return { digest: descriptor.digest, size: descriptor.size };
  let failures = 0;
  for (;;) {
    try {
      const blob = await downloadOnce(parts, descriptor, () => {
        failures = 0;
      });
      parts.progress({ status: 'Download complete', progressDetail: {}, id: shortOf(descriptor.digest) });
      return blob;
    } catch (error) {
      failures++;
      const isFinal = !(error instanceof TransportError) || !error.temporary || parts.signal.aborted;
      if (isFinal || failures >= parts.limits.downloadAttemptsMax) throw error;
      parts.progress({
        status: `Retrying in ${failures} second${failures > 1 ? 's' : ''}`,
        progressDetail: {},
        id: shortOf(descriptor.digest),
      });
      await new Promise<void>((wake) => parts.clock.arm(parts.clock.now() + failures * RETRY_MS, wake));
    }
  }
}

async function downloadOnce(parts: PullParts, descriptor: Descriptor, advanced: () => void): Promise<Blob> {
  const { client, library, progress, clock, signal } = parts;
  const id = shortOf(descriptor.digest);
  let writer = await library.parts.content.resume(descriptor.digest);
  let isKept = true;
  try {
    if (writer.size > descriptor.size) {
      await writer.abort();
      writer = await library.parts.content.resume(descriptor.digest);
    }
    if (writer.size < descriptor.size || descriptor.size === 0) {
      const answer = await client.blob(descriptor.digest, writer.size, signal);
      if (answer.status === 200 && writer.size > 0) {
        // The registry can't go on in the middle.
        await writer.abort();
        writer = await library.parts.content.resume(descriptor.digest);
      }
      let toldMs = Number.NEGATIVE_INFINITY;
      for await (const chunk of interruptible(answer.body as AsyncIterable<Buffer>)) {
        if (writer.size + chunk.length > descriptor.size) {
          isKept = false;
          throw new DrydockError(
            'ERR_DIGEST_MISMATCH',
            `the blob ${descriptor.digest} is longer than the ${descriptor.size} bytes that its manifest states`,
          );
        }
        await writer.write(chunk);
        advanced();
        if (clock.now() - toldMs < PROGRESS_MS) continue;
        toldMs = clock.now();
        progress({
          status: 'Downloading',
          progressDetail: { current: writer.size, total: descriptor.size },
          id,
        });
      }
      if (writer.size < descriptor.size)
        throw new TransportError(
          `the blob ${descriptor.digest} broke off after ${writer.size} of ${descriptor.size} bytes`,
          true,
        );
    }
    progress({ status: 'Verifying Checksum', progressDetail: {}, id });
    isKept = false;
    return await writer.commit(descriptor.digest);
  } catch (error) {
    if (isKept) await writer.suspend();
    else await writer.abort();
    throw error;
  }
}

/** Turns errors of a body in mid-stream into temporary ones. */
async function* interruptible(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* body;
  } catch (error) {
    throw new TransportError(
      `the download broke off: ${error instanceof Error ? error.message : String(error)}`,
      true,
      { cause: error },
    );
  }
}
