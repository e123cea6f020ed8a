/** Which folders a data root has, for fsck: what is in them that is not the daemon's, and data roots inside data roots. */
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errorCode } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import { isTemporary } from './durable.ts';

/** A data root, and those of user namespaces (userns-remap) inside it. */
export async function rootsWithin(dataRoot: string): Promise<string[]> {
  const names = (await entries(dataRoot)).filter((name) => REMAPPED_ROOT.test(name));
  return [dataRoot, ...names.map((name) => join(dataRoot, name))];
}

/** The first user and group of the machine that one in the namespace is. */
const REMAPPED_ROOT = /^(\d+)\.(\d+)$/;
/** More than any namespace has: the ranges' lengths are not known here, and need not be. */
const IDS_MAX = 2 ** 31;

/** How the users of a data root's containers are those of the machine, when they are others. */
export function mapsOf(dataRoot: string): UserMaps | undefined {
  const [, uid, gid] = REMAPPED_ROOT.exec(basename(dataRoot)) ?? [];
  if (uid === undefined) return undefined;
  const map = (outside: string | undefined): UserMaps['uids'] => [
    { inside: 0, outside: Number(outside), length: IDS_MAX },
  ];
  return { uids: map(uid), gids: map(gid) };
}

/** What the daemon has in its data root, and in folders there. What is not named here holds things by their ids. */
const PLACES: Record<string, RegExp> = {
  '.': /^(build|build-cache|containers|daemon\.lock.*|engine-id|image|lost\+found|networks|overlay2|vfs|volumes|\d+\.\d+)$/,
  image: /^(content|images|references\.json)$/,
  'image/content': /^(fresh\.json|ingest|sha256)$/,
  overlay2: /^(\.probe-.*|empty2?|l|layers|roots)$/,
  vfs: /^(l|layers|roots)$/,
};

/** Paths in those folders that nobody but somebody else can have put there. */
export async function straysIn(dataRoot: string): Promise<string[]> {
  const strays: string[] = [];
  for (const [folder, known] of Object.entries(PLACES))
    for (const name of await entries(join(dataRoot, folder)))
      if (!known.test(name) && !isTemporary(name)) strays.push(join(dataRoot, folder, name));
  return strays;
}

/** The entries of a folder, in order; none where it does not exist. */
export async function entries(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  }
}
