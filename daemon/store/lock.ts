/**
 * One daemon per data root. The lock is a file that names its owner's process and start time, made by link(2), which
 * fails when the name exists: a dead owner's lock is recognised and replaced, a number that was given to another process
 * since does not count as alive.
 */
import { link, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DrydockError, errorCode } from '#common/errors';
import { processStartTime } from '../platform.ts';

/** A held lock. */
export interface DataRootLock {
  /** True when the last owner did not end in order. */
  readonly abandoned: boolean;
  release(): Promise<void>;
  /** As {@link release}, but what an owner left that did not end in order is there again: somebody else will clean up. */
  putBack(): Promise<void>;
}

/** Takes the lock. @throws ERR_DATA_ROOT_IN_USE naming the process that holds it */
export async function lockDataRoot(dataRoot: string): Promise<DataRootLock> {
  const path = join(dataRoot, 'daemon.lock');
  const own = `${path}.${process.pid}`;
  await writeFile(own, `${process.pid} ${await processStartTime(process.pid)}\n`);
  let left: string | undefined;
  try {
    for (;;) {
      try {
        await link(own, path);
        break;
      } catch (error) {
        if (errorCode(error) !== 'EEXIST') throw error;
      }
      const text = await readFile(path, 'utf8').catch(() => '');
      const [pid = '', startTime = ''] = text.trim().split(' ');
      if (startTime !== '' && (await processStartTime(Number(pid))) === startTime)
        throw new DrydockError(
          'ERR_DATA_ROOT_IN_USE',
          `another daemon (process ${pid}) uses the data root ${dataRoot}. Stop it, or give this one its own --data-root, --exec-root and --host.`,
        );
      left = text;
      await rm(path, { force: true });
    }
  } finally {
    await rm(own, { force: true });
  }
  const release = (): Promise<void> => rm(path, { force: true });
  return {
    abandoned: left !== undefined,
    release,
    putBack: () => (left === undefined ? release() : writeFile(path, left)),
  };
}
