/** A root file system for a moment: what reads or changes files of layers in between. */
import { randomUUID } from 'node:crypto';
import type { LayerRecord } from '../image/records.ts';
import type { Roots } from '../image/roots.ts';

/** Runs `work` with a mounted root over layers, which is gone afterwards. */
export async function withRoot<T>(
  roots: Roots,
  layers: readonly LayerRecord[],
  work: (root: string, id: string) => Promise<T>,
): Promise<T> {
  const id = `build-${randomUUID()}`;
  await roots.createOn(id, '', layers);
  try {
    return await work(await roots.mount(id), id);
  } finally {
    await roots.remove(id);
  }
}
