/** `docker manifest inspect` and friends: what a registry has under a name, without pulling it. */
import { DOCUMENT_BYTES_MAX, parseConfigFile } from '../config-file.ts';
import type { Platform } from '../platform.ts';
import type { RepositoryClient } from './client.ts';
import { parseManifest } from './manifest.ts';
import { readBody } from './transport.ts';

/** The answer of GET /distribution/NAME/json. */
export interface FetchedDescriptor {
  Descriptor: { mediaType: string; digest: string; size: number };
  Platforms: Partial<Platform>[];
}

export async function describeRemote(
  client: RepositoryClient,
  tagOrDigest: string,
  signal: AbortSignal,
): Promise<FetchedDescriptor> {
  const { bytes, digest, contentType } = await client.manifest(tagOrDigest, signal);
  const manifest = parseManifest(bytes, contentType);
  const Descriptor = { mediaType: manifest.mediaType, digest, size: bytes.length };
  if (manifest.kind === 'index')
    return {
      Descriptor,
      Platforms: manifest.manifests.flatMap(({ platform }) => (platform ? [platform] : [])),
    };
  const config = await readBody(await client.blob(manifest.config.digest, 0, signal), DOCUMENT_BYTES_MAX);
  const { os, architecture, variant } = parseConfigFile(config);
  return { Descriptor, Platforms: [{ os, architecture, ...(variant !== undefined && { variant }) }] };
}
