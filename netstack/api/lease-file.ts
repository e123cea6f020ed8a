/**
 * DHCP's leases in a file, so that guests keep their addresses when the network is started anew. The file is replaced as a
 * whole: a crash leaves the old one or the new one. A guest whose lease was given in the seconds before a crash keeps its
 * address all the same, since the server lets clients it does not remember have what is free.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import type { LeaseRecord } from '../service/lease-pool.ts';

/** Whose leases are kept. */
export interface LeaseKeeper {
  keepLeases(): Promise<LeaseRecord[]>;
  restoreLeases(records: LeaseRecord[]): Promise<number>;
}

/** How often the file is brought up to date. */
const INTERVAL_MS = 10_000;

/**
 * Takes the leases of `path` into their owner and keeps them there from now on.
 * @returns ends it, with a last write
 * @throws DrydockError ERR_LEASE_FILE_INVALID
 */
export async function keepLeaseFile(
  owner: LeaseKeeper,
  path: string,
  log: Log,
): Promise<() => Promise<void>> {
  await owner.restoreLeases(await load(path));
  let kept = '';
  let running = Promise.resolve();
  const save = async (): Promise<void> => {
    try {
      const text = `${JSON.stringify(await owner.keepLeases(), undefined, 2)}\n`;
      if (text === kept) return;
      await writeFile(`${path}.new`, text, { mode: 0o600 });
      await rename(`${path}.new`, path);
      kept = text;
    } catch (error) {
      log.warn({ err: error, path }, 'leases could not be kept');
    }
  };
  const timer = setInterval(() => {
    running = running.then(save);
  }, INTERVAL_MS);
  return async () => {
    clearInterval(timer);
    await running;
    await save();
  };
}

async function load(path: string): Promise<LeaseRecord[]> {
  try {
    const records: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (Array.isArray(records)) return records as LeaseRecord[];
    throw new Error('it is no list');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw new DrydockError(
      'ERR_LEASE_FILE_INVALID',
      `${path} holds no leases: ${errorMessage(error)}. Remove it to begin with none.`,
      { cause: error },
    );
  }
}
