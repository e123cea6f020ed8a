/**
 * What `docker rmi` removes, and when it refuses: moby's rules and texts (daemon/images/image_delete.go). A plan is
 * made from names, children and users of images without touching anything; {@link Images} carries it out.
 */
import { DrydockError } from '#common/errors';
import { formatFamiliar, parseReference, type Reference, repositoryOf } from './reference.ts';
import type { ImageUsers } from './store.ts';

/** What the rules need to know. */
export interface RemovalFacts {
  /** Names of an image in normal form, in order. */
  referencesOf(id: string): string[];
  childrenOf(id: string): string[];
  parentOf(id: string): string | undefined;
  users: ImageUsers;
}

/** Names to take away, then images to delete, in this order. */
export interface RemovalPlan {
  untag: string[];
  delete: string[];
}

export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12);
}

function conflict(message: string): DrydockError {
  return new DrydockError('ERR_IMAGE_CONFLICT', `conflict: ${message}`);
}

const isCanonical = (reference: Reference): boolean => reference.digest !== undefined;

/** Whether all names are one tag, with or without the digests of the same repository. */
function isSingleReference(names: string[]): boolean {
  if (names.length <= 1) return true;
  const references = names.map(parseReference);
  const tagged = references.filter((reference) => !isCanonical(reference));
  if (tagged.length > 1) return false;
  const digested = new Set(references.filter(isCanonical).map(repositoryOf));
  return digested.size === 1 && digested.has(repositoryOf(tagged[0] ?? references[0]!));
}

/** Why an image can't be deleted. `soft` reasons give way to --force; `active` includes its names. */
function findConflict(
  facts: RemovalFacts,
  id: string,
  names: string[],
  check: { soft: boolean; active: boolean },
): DrydockError | undefined {
  const users = facts.users(id);
  const running = users.find((user) => user.running);
  const stopped = users.find((user) => !user.running);
  const make = (verb: 'cannot' | 'must', reason: string): DrydockError =>
    conflict(`unable to delete ${shortId(id)} (${verb} be forced) - ${reason}`);
  if (facts.childrenOf(id).length > 0) return make('cannot', 'image has dependent child images');
  if (running) return make('cannot', `image is being used by running container ${shortId(running.id)}`);
  if (check.active && names.length > 0) return make('must', 'image is referenced in multiple repositories');
  if (check.soft && stopped)
    return make('must', `image is being used by stopped container ${shortId(stopped.id)}`);
  return undefined;
}

/**
 * Plans a removal.
 * @param name the name in normal form when the user gave one, undefined when it was an id.
 * @throws DrydockError ERR_IMAGE_CONFLICT with docker's texts.
 */
export function planRemoval(
  facts: RemovalFacts,
  id: string,
  name: string | undefined,
  options: { force: boolean; prune: boolean },
): RemovalPlan {
  const names = facts.referencesOf(id);
  const plan: RemovalPlan = { untag: [], delete: [] };
  let remaining = names;
  if (name !== undefined) {
    const user = facts.users(id)[0];
    if (!options.force && user && isSingleReference(names))
      throw conflict(
        `unable to remove repository reference ${JSON.stringify(formatFamiliar(parseReference(name)))} (must force) - container ${shortId(user.id)} is using its referenced image ${shortId(id)}`,
      );
    plan.untag.push(name);
    remaining = names.filter((each) => each !== name);
    const digests = orphanedDigests(name, remaining);
    plan.untag.push(...digests);
    remaining = remaining.filter((each) => !digests.includes(each));
    if (remaining.length > 0) return plan;
  } else if (isSingleReference(names)) {
    const found = findConflict(facts, id, [], { soft: !options.force, active: false });
    if (found) throw found;
    plan.untag.push(...names);
    remaining = [];
  }
  const found = findConflict(facts, id, remaining, { soft: !options.force, active: !options.force });
  // moby untags first and asks afterwards whether the image may go: an image that may not merely loses its name.
  if (found && name !== undefined) return plan;
  if (found) throw found;
  plan.untag.push(...remaining.filter((each) => !plan.untag.includes(each)));
  deleteUpwards(facts, id, options.prune, plan);
  return plan;
}

/** Digest references of a repository go with its last tag. */
function orphanedDigests(removed: string, remaining: string[]): string[] {
  const reference = parseReference(removed);
  if (isCanonical(reference)) return [];
  const same = remaining.filter((each) => repositoryOf(parseReference(each)) === repositoryOf(reference));
  return same.some((each) => !isCanonical(parseReference(each))) ? [] : same;
}

/** The image, then its parents for as long as nothing else needs them. */
function deleteUpwards(facts: RemovalFacts, id: string, prune: boolean, plan: RemovalPlan): void {
  plan.delete.push(id);
  let parent = prune ? facts.parentOf(id) : undefined;
  while (parent !== undefined) {
    const gone = new Set(plan.delete);
    const needed =
      facts.referencesOf(parent).length > 0 ||
      facts.users(parent).length > 0 ||
      facts.childrenOf(parent).some((child) => !gone.has(child));
    if (needed) return;
    plan.delete.push(parent);
    parent = facts.parentOf(parent);
  }
}
