/**
 * What `docker images` and `docker history` show of images: filters as moby has them (daemon/images/images.go), and
 * the history with the layers' sizes. Pure functions.
 */
import { DrydockError } from '#common/errors';
import { parseReference } from './reference.ts';
import type { Image } from './store.ts';

/** Filters of GET /images/json by name; the values of one name are alternatives, except for labels. */
export interface ImageQuery {
  /** Images without names that others were built on, too. */
  all: boolean;
  dangling: boolean | undefined;
  labels: readonly string[];
  references: readonly string[];
  /** RFC 3339 or undefined: only images made before, after. */
  createdBefore: string | undefined;
  createdAfter: string | undefined;
}

/** Whether an image has no name. */
export function isDangling(image: Image): boolean {
  return image.tags.length === 0 && image.digests.length === 0;
}

/** Whether a label filter (`key` or `key=value`) fits. */
export function hasLabel(image: Image, filter: string): boolean {
  const equals = filter.indexOf('=');
  const value = image.config.Labels?.[equals < 0 ? filter : filter.slice(0, equals)];
  return value !== undefined && (equals < 0 || value === filter.slice(equals + 1));
}

/** A part of a pattern of Go's path.Match: a character, plain or escaped, `*`, `?`, or a class. */
const PATTERN_PART = /\\(.)|(\*)|(\?)|\[(\^?)((?:(?:\\.|[^\]\\-])(?:-(?:\\.|[^\]\\-]))?)+)\]|([^\\[])/suy;

/** Go's path.Match: `*` and `?` stop at slashes. @throws ERR_BAD_PARAMETER for a pattern that is none */
function globExpression(pattern: string): RegExp {
  let source = '';
  PATTERN_PART.lastIndex = 0;
  while (PATTERN_PART.lastIndex < pattern.length) {
    const part = PATTERN_PART.exec(pattern);
    if (!part) throw new DrydockError('ERR_BAD_PARAMETER', 'syntax error in pattern');
    const [, escaped, star, mark, negated, members, plain] = part;
    if (star) source += '[^/]*';
    else if (mark) source += '[^/]';
    else if (members) source += `[${negated}${members.replace(/[\^[&]/g, '\\$&')}]`;
    else source += (escaped ?? plain)!.replace(/[$()*+./?[\\\]^{|}]/g, '\\$&');
  }
  return new RegExp(`^${source}$`);
}

/** reference.FamiliarMatch: the pattern may be of the name with its tag, or of the name alone. */
function nameMatches(pattern: RegExp, name: string): boolean {
  const { tag, digest } = parseReference(name);
  const bare = name.slice(0, name.length - (tag ? tag.length + 1 : 0) - (digest ? digest.length + 1 : 0));
  return pattern.test(name) || pattern.test(bare);
}

/** The images that a query selects, with those of their names that it selects. */
export function selectImages(images: readonly Image[], query: ImageQuery): Image[] {
  const patterns = query.references.map(globExpression);
  const parents = new Set(images.map((image) => image.parent));
  const selected: Image[] = [];
  for (let image of images) {
    const time = Date.parse(image.created);
    if (query.createdBefore !== undefined && time >= Date.parse(query.createdBefore)) continue;
    if (query.createdAfter !== undefined && time <= Date.parse(query.createdAfter)) continue;
    if (!query.labels.every((label) => hasLabel(image, label))) continue;
    if (patterns.length > 0) {
      const matches = (name: string): boolean => patterns.some((pattern) => nameMatches(pattern, name));
      image = { ...image, tags: image.tags.filter(matches), digests: image.digests.filter(matches) };
      if (isDangling(image)) continue;
    }
    const isParent = parents.has(image.id);
    const isUnnamed = isDangling(image);
    if (query.dangling !== undefined && (isUnnamed && !isParent) !== query.dangling) continue;
    if (!query.all && query.dangling === undefined && isUnnamed && isParent) continue;
    selected.push(image);
  }
  return selected;
}

/** A line of `docker history`. */
export interface HistoryItem {
  Id: string;
  /** Seconds since the epoch. */
  Created: number;
  CreatedBy: string;
  Tags: string[] | null;
  Size: number;
  Comment: string;
}

/**
 * The history of an image, newest first. Steps of images that are no longer here (or never were) have the id
 * `<missing>`.
 * @param parentOf gives the image that another was built on here.
 */
export function historyOf(image: Image, parentOf: (image: Image) => Image | undefined): HistoryItem[] {
  let layer = 0;
  const items = image.history.map(
    (step): HistoryItem => ({
      Id: '<missing>',
      Created: Math.floor(Date.parse(step.created ?? '') / 1000) || 0,
      CreatedBy: step.created_by ?? '',
      Tags: null,
      Size: step.empty_layer ? 0 : (image.layerBytes[layer++] ?? 0),
      Comment: step.comment ?? '',
    }),
  );
  items.reverse();
  let known: Image | undefined = image;
  for (const item of items) {
    if (!known) break;
    item.Id = known.id;
    item.Tags = known.tags.length > 0 ? known.tags : null;
    known = parentOf(known);
  }
  return items;
}

/** Bytes of each image's layers that other images have too, by image id. */
export function sharedBytes(images: readonly Image[]): Map<string, number> {
  const users = new Map<string, number>();
  for (const { diffIds } of images)
    for (const diffId of new Set(diffIds)) users.set(diffId, (users.get(diffId) ?? 0) + 1);
  return new Map(
    images.map(({ id, diffIds, layerBytes }) => [
      id,
      diffIds.reduce((sum, diffId, index) => sum + (users.get(diffId)! > 1 ? layerBytes[index]! : 0), 0),
    ]),
  );
}
