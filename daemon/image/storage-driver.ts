/** Which storage driver works in a data root, found out by trying: overlay2 on Linux, apfs on macOS, vfs everywhere. */
import { constants, type PathLike } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { DrydockError, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { probeOverlay } from './overlay-driver.ts';

/** Storage drivers by the names that dockerd uses, and the one of macOS. */
export type StorageDriver = 'overlay2' | 'apfs' | 'vfs';

/** Makes a file of the blocks of another one, or fails. */
export type CloneFile = (from: PathLike, to: PathLike) => Promise<void>;

/** What of the machine the choice depends on. */
export interface StorageHost {
  platform: NodeJS.Platform;
  cloneFile: CloneFile;
}

/** This machine. Node clones by the system's copyfile(3) on macOS, and by an ioctl on Linux. */
export const thisHost: StorageHost = {
  platform: process.platform,
  cloneFile: (from, to) => copyFile(from, to, constants.COPYFILE_FICLONE_FORCE),
};

/** @throws DrydockError ERR_STORAGE_DRIVER when `wanted` does not work here */
export async function chooseDriver(
  dataRoot: string,
  wanted: StorageDriver | undefined,
  host: StorageHost,
  log: Log,
): Promise<StorageDriver> {
  const best = host.platform === 'darwin' ? 'apfs' : 'overlay2';
  if (wanted === 'vfs') return wanted;
  const problem = await ((wanted ?? best) === 'apfs'
    ? probeClones(dataRoot, host)
    : probeOverlay(`${dataRoot}/overlay2`));
  if (problem === undefined) return wanted ?? best;
  if (wanted !== undefined) throw driverError(wanted, problem);
  log.warn(
    { problem },
    `the storage driver ${best} does not work in the data root: copying layers instead (driver vfs)`,
  );
  return 'vfs';
}

/** Why files can't be cloned in a data root; undefined when they can. */
async function probeClones(
  dataRoot: string,
  { platform, cloneFile }: StorageHost,
): Promise<string | undefined> {
  if (platform !== 'darwin') return 'it is for macOS';
  await mkdir(dataRoot, { recursive: true });
  const folder = await mkdtemp(`${dataRoot}/.probe-`);
  try {
    await writeFile(`${folder}/file`, 'x');
    await cloneFile(`${folder}/file`, `${folder}/clone`);
    return undefined;
  } catch (error) {
    return errorMessage(error);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const FILE_SYSTEMS: Record<Exclude<StorageDriver, 'vfs'>, string> = {
  overlay2: 'a file system that supports overlayfs (ext4, xfs, btrfs)',
  apfs: 'APFS',
};

function driverError(driver: Exclude<StorageDriver, 'vfs'>, problem: string): DrydockError {
  return new DrydockError(
    'ERR_STORAGE_DRIVER',
    `the storage driver ${driver} does not work in this data root (${problem}). Use --storage-driver vfs, or a data root on ${FILE_SYSTEMS[driver]}.`,
  );
}
