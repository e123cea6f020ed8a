/** What FROM and `--from` may name besides stages: images, which are pulled, and what the client gives under a name. */
import type { Lease } from '../image/library.ts';
import { hostPlatform, parsePlatform, selectsPlatform } from '../image/platform.ts';
import type { LayerRecord } from '../image/records.ts';
import { formatFamiliar, parseReference, parseTagged } from '../image/reference.ts';
import type { Progress } from '../image/store.ts';
import type { BuildOptions, BuildParts, NamedContext } from './options.ts';

/** An image that is here. */
export interface Found {
  id: string;
  layers: readonly LayerRecord[];
}

/** An image by reference, pulled when it is not here, is of another platform, or the client wants the newest. */
export async function baseImage(
  reference: string,
  platform: string,
  build: { parts: BuildParts; options: BuildOptions; lease: Lease; progress: (line: Progress) => void },
): Promise<Found> {
  const { images, signal, credentialsFor } = build.parts;
  const { library } = images;
  const wanted = platform === '' ? hostPlatform() : parsePlatform(platform);
  const local = library.find(reference);
  const isRight = local !== undefined && (platform === '' || selectsPlatform(wanted)(local));
  let id = local?.id;
  if (!isRight || build.options.pull) {
    const { domain } = parseReference(reference);
    const request = {
      credentials: await credentialsFor(domain),
      progress: build.progress,
      signal,
      ...(platform !== '' && { platform }),
    };
    [id] = await images.pull(reference, request);
  }
  const record = library.parts.records.get(id!)!;
  for (const digest of library.digestsOf(record)) build.lease.add(digest);
  return record;
}

/** What the client gives for a name: `alpine` and `alpine:latest` are the same. */
export function contextNamed({ namedContexts }: BuildOptions, name: string): NamedContext | undefined {
  if (namedContexts.size === 0) return undefined;
  const exact = namedContexts.get(name) ?? namedContexts.get(name.toLowerCase());
  if (exact) return exact;
  try {
    const full = formatFamiliar(parseTagged(name));
    return namedContexts.get(full) ?? namedContexts.get(full.replace(/:latest$/, ''));
  } catch {
    return undefined; // a stage's number
  }
}

/** A folder as the one layer of a new image. */
export function folderBase(
  { images, roots }: BuildParts,
  folder: string,
  lease: Lease,
): Promise<LayerRecord> {
  return images.library.makeLayer({ folder, options: { overlay: false, maps: roots.maps } }, lease);
}
