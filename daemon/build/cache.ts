/**
 * The build cache: images that a step has made before. By their key, when they were made here; by their history, when
 * the client named an image (`--cache-from`) that was pulled or loaded.
 */
import type { ConfigFile } from '../image/config-file.ts';
import { digestOf } from '../image/content.ts';
import type { Lease, Library } from '../image/library.ts';
import type { ImageRecord, LayerRecord } from '../image/records.ts';
import type { ImageConfig } from '../image/store.ts';

/** A step that is about to be done. */
export interface CacheQuery {
  imageId: string | undefined;
  layers: readonly LayerRecord[];
  file: ConfigFile | undefined;
  key: string;
  createdBy: string;
  config: ImageConfig;
  author: string;
  lease: Lease;
}

/** What a step's image depends on, as a digest. `createdBy` has the digest of what is copied. */
export function cacheKey(
  imageId: string | undefined,
  createdBy: string,
  config: ImageConfig,
  author: string,
): string {
  return digestOf(JSON.stringify([imageId ?? '', createdBy, config, author]));
}

/** The image of a step that was done before; undefined when it must be done. */
export async function findCached(
  library: Library,
  query: CacheQuery,
  sources: readonly ImageRecord[],
): Promise<ImageRecord | undefined> {
  const made = library.parts.records
    .list()
    .filter((record) => record.cacheKey === query.key && record.parent === query.imageId)
    .sort((a, b) => createdOf(library, b).localeCompare(createdOf(library, a)));
  for (const record of made) if (await library.isWhole(record.id)) return record;
  for (const source of sources) {
    const match = matchingStep(library, query, source);
    if (!match) continue;
    const { layer, created } = match;
    const { createdBy, config, author, key, lease } = query;
    return library.derive({
      base: query.file,
      baseLayers: query.layers,
      layer,
      config,
      // With the time of then, the result is the very same image.
      step: { created_by: createdBy, comment: '', author, created },
      parentId: query.imageId,
      cacheKey: key,
      lease,
    });
  }
  return undefined;
}

function createdOf(library: Library, record: ImageRecord): string {
  return library.configOf(record.id).created ?? '';
}

/** The layer (none for some) and time of the same step in the history of an image; undefined when it is not there. */
function matchingStep(
  library: Library,
  { layers, file, createdBy }: CacheQuery,
  source: ImageRecord,
): { layer: LayerRecord | undefined; created: string | undefined } | undefined {
  const { history } = library.configOf(source.id);
  const past = file?.history ?? [];
  const step = history[past.length];
  if (step?.created_by !== createdBy) return undefined;
  if (!past.every((each, index) => each.created_by === history[index]?.created_by)) return undefined;
  if (!layers.every((layer, index) => layer.diffId === source.layers[index]?.diffId)) return undefined;
  const { created } = step;
  if (step.empty_layer) return { layer: undefined, created };
  const layer = source.layers[layers.length];
  return layer && { layer, created };
}
