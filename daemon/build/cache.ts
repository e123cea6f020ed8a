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
    const layer = matchingStep(library, query, source);
    if (layer === false) continue;
    const { createdBy, config, author, key, lease } = query;
    return library.derive({
      base: query.file,
      baseLayers: query.layers,
      layer,
      config,
      step: { created_by: createdBy, comment: '', author },
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

/** The layer that an image has made in the same step after the same history; undefined for none, false for no match. */
function matchingStep(
  library: Library,
  { layers, file, createdBy }: CacheQuery,
  source: ImageRecord,
): LayerRecord | undefined | false {
  const { history } = library.configOf(source.id);
  const past = file?.history ?? [];
  const step = history[past.length];
  if (step?.created_by !== createdBy) return false;
  if (!past.every((each, index) => each.created_by === history[index]?.created_by)) return false;
  if (!layers.every((layer, index) => layer.diffId === source.layers[index]?.diffId)) return false;
  if (step.empty_layer) return undefined;
  return source.layers[layers.length] ?? false;
}
