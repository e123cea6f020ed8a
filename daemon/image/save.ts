/**
 * `docker save`: one archive that is docker's layout and an OCI image layout at once, as moby 25 and later write it.
 * Layers are written uncompressed, under their diff ids, whatever they came as; so the same images give the same
 * bytes. The stream is made while it is read, holding one chunk.
 */
import type { ConfigFile } from './config-file.ts';
import { digestOf, hexOf } from './content.ts';
import type { LayerRecord } from './records.ts';
import { formatNormal, parseReference } from './reference.ts';
import { emitHeader, makeHeader, padding, trailer } from './tar/header.ts';

/** An image to be saved, and the names to save it under (familiar form). */
export interface SavedImage {
  id: string;
  configBytes: Buffer;
  config: ConfigFile;
  layers: LayerRecord[];
  names: string[];
}

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';

const blobName = (digest: string): string => `blobs/sha256/${hexOf(digest)}`;

function ociManifest(image: SavedImage): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: OCI_CONFIG, digest: image.id, size: image.configBytes.length },
      layers: image.layers.map((layer) => ({
        mediaType: OCI_LAYER,
        digest: layer.diffId,
        size: layer.tarBytes,
      })),
    }),
  );
}

function file(name: string, bytes: Buffer): Buffer {
  return Buffer.concat([
    emitHeader(makeHeader({ name, type: 'file', size: bytes.length })),
    bytes,
    padding(bytes.length),
  ]);
}

/**
 * The archive, piece by piece. Images that share layers have them once.
 * @param tarOf gives a layer's uncompressed archive
 */
export async function* saveArchive(
  images: readonly SavedImage[],
  tarOf: (layer: LayerRecord) => AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const written = new Set<string>();
  for (const name of ['blobs/', 'blobs/sha256/']) yield emitHeader(makeHeader({ name, type: 'directory' }));
  const once = (digest: string): boolean => !written.has(digest) && !!written.add(digest);
  for (const image of images) {
    if (once(image.id)) yield file(blobName(image.id), image.configBytes);
    for (const layer of image.layers) {
      if (!once(layer.diffId)) continue;
      yield emitHeader(makeHeader({ name: blobName(layer.diffId), type: 'file', size: layer.tarBytes }));
      yield* tarOf(layer);
      yield padding(layer.tarBytes);
    }
    const manifest = ociManifest(image);
    if (once(digestOf(manifest))) yield file(blobName(digestOf(manifest)), manifest);
  }
  yield file('index.json', Buffer.from(JSON.stringify(ociIndex(images))));
  yield file('manifest.json', Buffer.from(JSON.stringify(images.map(dockerManifest))));
  yield file('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
  const repositories = legacyRepositories(images);
  if (repositories) yield file('repositories', Buffer.from(JSON.stringify(repositories)));
  yield trailer();
}

function dockerManifest(image: SavedImage): object {
  return {
    Config: blobName(image.id),
    RepoTags: image.names.length > 0 ? image.names : null,
    Layers: image.layers.map((layer) => blobName(layer.diffId)),
  };
}

function ociIndex(images: readonly SavedImage[]): object {
  const manifests = images.flatMap((image) => {
    const bytes = ociManifest(image);
    const { architecture, os, variant } = image.config;
    const descriptor = {
      mediaType: OCI_MANIFEST,
      digest: digestOf(bytes),
      size: bytes.length,
      platform: { architecture, os, ...(variant && { variant }) },
    };
    if (image.names.length === 0) return [descriptor];
    return image.names.map((name) => ({
      ...descriptor,
      annotations: {
        'io.containerd.image.name': formatNormal(parseReference(name)),
        'org.opencontainers.image.ref.name': name.slice(name.lastIndexOf(':') + 1),
      },
    }));
  });
  return { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
}

/** The file that docker before 1.10 read: repository, tag, and the topmost layer. */
function legacyRepositories(images: readonly SavedImage[]): object | undefined {
  const repositories: Record<string, Record<string, string>> = {};
  for (const image of images) {
    const top = image.layers.at(-1);
    for (const name of top ? image.names : []) {
      const colon = name.lastIndexOf(':');
      const repository = name.slice(0, colon);
      const tags = { ...repositories[repository], [name.slice(colon + 1)]: hexOf(top!.diffId) };
      repositories[repository] = tags;
    }
  }
  return Object.keys(repositories).length > 0 ? repositories : undefined;
}
