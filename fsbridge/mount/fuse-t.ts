/** Mounting on macOS: an installed FUSE-T mounts, a thread of ours answers it. Has never run on a Mac. */
import { closeSync } from 'node:fs';
import { basename } from 'node:path';
import { Worker } from 'node:worker_threads';
import { compiledEntry } from '#common/entry';
import { DrydockError, errorMessage } from '#common/errors';
import { nullLog } from '#common/log';
import { findFuseT } from '../channel/fuse-t.ts';
import { control } from './control.ts';
import type { FuseTInput, FuseTMessage } from './fuse-t-worker.ts';
import {
  type BridgeMount,
  type BridgeMountOptions,
  checkEnds,
  openTrace,
  policyOf,
  statsOf,
} from './options.ts';

/**
 * Serves a host folder at a target by FUSE-T until unmounted.
 * Fails as mountFolder does, and with ERR_FS_FUSE_T where FUSE-T isn't installed or can't mount.
 */
export async function mountByFuseT(options: BridgeMountOptions): Promise<BridgeMount> {
  const { source, target, file } = await checkEnds(options);
  if (file)
    throw new DrydockError(
      'ERR_FS_SOURCE',
      `${source} is a file; FUSE-T mounts folders. Mount the folder that it is in.`,
    );
  const helper = findFuseT();
  if (helper === undefined)
    throw new DrydockError(
      'ERR_FS_FUSE_T',
      'Folders are mounted by FUSE-T on macOS, and it is not installed: "brew install --cask fuse-t". Its licence asks for a fee in commercial use.',
    );
  const policy = policyOf(options);
  const traceFd = await openTrace(options.trace, target);
  const shared = control();
  const log = options.log ?? nullLog;
  const volumeName = basename(source) || 'host';
  const input: FuseTInput = { source, target, helper, volumeName, policy, shared: shared.shared, traceFd };
  const worker = new Worker(compiledEntry('fsbridge/mount/fuse-t-worker'), {
    workerData: input,
    execArgv: [],
  });
  const ended = new Promise<void>((resolve) => {
    worker.once('exit', () => {
      if (traceFd >= 0) closeSync(traceFd);
      resolve();
    });
  });
  await new Promise<void>((resolve, reject) => {
    worker.on('error', (error) => {
      log.error({ error: errorMessage(error), target }, 'file server failed');
      reject(
        new DrydockError('ERR_FS_SERVER', `The file server for ${source} failed; see the log.`, {
          cause: error,
        }),
      );
    });
    worker.on('message', (message: FuseTMessage) => {
      if (message.kind === 'started') resolve();
      else if (message.kind === 'refused') reject(new DrydockError(message.code, message.message));
      else log.error({ ...message, target }, 'file server trouble');
    });
  });
  return {
    source,
    target,
    ended,
    stats: async () => statsOf(shared.statistics),
    unmount: async () => {
      worker.postMessage('unmount');
      await ended;
    },
  };
}
