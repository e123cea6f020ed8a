/** Manifests and indexes of registries (OCI image specification; docker's schema 2): parsed, chosen from, and made. */
import { DrydockError } from '#common/errors';
import { parseDocument } from '../config-file.ts';
import { type Platform, selectsPlatform } from '../platform.ts';

export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';
const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
const OCI_ZSTD_LAYER = 'application/vnd.oci.image.layer.v1.tar+zstd';
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
const OCI_GZIP_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

/** What we can read, for the Accept header. */
export const ACCEPTED_MANIFESTS: string = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(', ');

/** A blob as a manifest names it. */
export interface Descriptor {
  mediaType: string;
  /** Always sha256. */
  digest: string;
  size: number;
  platform?: Partial<Platform>;
}

export type Manifest =
  | { kind: 'image'; mediaType: string; config: Descriptor; layers: Descriptor[] }
  | { kind: 'index'; mediaType: string; manifests: Descriptor[] };

function bad(reason: string): DrydockError {
  return new DrydockError('ERR_BAD_MANIFEST', `the registry's manifest is not usable: ${reason}`);
}

function descriptor(value: unknown): Descriptor {
  const { mediaType, digest, size, platform } = (value ?? {}) as Record<string, unknown>;
  if (typeof digest !== 'string' || !/^sha256:[a-f0-9]{64}$/.test(digest))
    throw bad(`it names the digest ${JSON.stringify(digest)}; only sha256 is supported`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw bad(`${digest} has the size ${JSON.stringify(size)}`);
  return {
    mediaType: typeof mediaType === 'string' ? mediaType : '',
    digest,
    size,
    ...(typeof platform === 'object' && platform !== null && { platform }),
  };
}

function list(value: unknown, what: string): Descriptor[] {
  if (!Array.isArray(value)) throw bad(`it has no ${what}`);
  return value.map(descriptor);
}

/** Parses a manifest. What it is follows from its fields; the media type must agree. @throws ERR_BAD_MANIFEST */
export function parseManifest(bytes: Buffer, contentType: string | undefined): Manifest {
  const document = parseDocument(bytes, 'manifest');
  const stated = typeof document.mediaType === 'string' ? document.mediaType : contentType?.split(';')[0];
  if (document.schemaVersion === 1)
    throw bad(
      'it has schema version 1, which was given up in 2019. Push the image again with a current tool',
    );
  const isIndex = document.manifests !== undefined;
  const known = isIndex ? [OCI_INDEX, DOCKER_LIST] : [OCI_MANIFEST, DOCKER_MANIFEST];
  if (stated === undefined || !known.includes(stated))
    throw bad(`it has the media type ${JSON.stringify(stated)}`);
  if (isIndex) return { kind: 'index', mediaType: stated, manifests: list(document.manifests, 'manifests') };
  return {
    kind: 'image',
    mediaType: stated,
    config: descriptor(document.config),
    layers: list(document.layers, 'layers'),
  };
}

/** The manifest of an index for a platform. @throws DrydockError ERR_IMAGE_NOT_FOUND with docker's text */
export function chooseManifest(index: Descriptor[], platform: Platform): Descriptor {
  const selects = selectsPlatform(platform);
  const found = index.filter((each) => each.platform && selects(each.platform));
  // Of several the one without a variant is the baseline, which every processor of the architecture can run.
  const chosen = found.find((each) => each.platform?.variant === platform.variant) ?? found[0];
  if (chosen) return chosen;
  const { os, architecture, variant } = platform;
  throw new DrydockError(
    'ERR_IMAGE_NOT_FOUND',
    `no matching manifest for ${os}/${architecture}${variant ? `/${variant}` : ''} in the manifest list entries`,
  );
}

/** A layer to be named in a manifest. */
export interface PushedLayer {
  digest: string;
  size: number;
  compression: 'gzip' | 'zstd';
}

/** A manifest in docker's schema 2, or in OCI's when a layer has a form that schema 2 does not know. */
export function makeManifest(
  config: { digest: string; size: number },
  layers: readonly PushedLayer[],
): { mediaType: string; bytes: Buffer } {
  const isOci = layers.some((layer) => layer.compression === 'zstd');
  const layerType = (layer: PushedLayer): string =>
    layer.compression === 'zstd' ? OCI_ZSTD_LAYER : isOci ? OCI_GZIP_LAYER : DOCKER_LAYER;
  const mediaType = isOci ? OCI_MANIFEST : DOCKER_MANIFEST;
  const document = {
    schemaVersion: 2,
    mediaType,
    config: { mediaType: isOci ? OCI_CONFIG : DOCKER_CONFIG, size: config.size, digest: config.digest },
    layers: layers.map((layer) => ({ mediaType: layerType(layer), size: layer.size, digest: layer.digest })),
  };
  return { mediaType, bytes: Buffer.from(JSON.stringify(document, undefined, 3)) };
}
