/** The helper threads of this process: started for its first mount, shared by all, and asleep without work. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { compiledEntry } from '#common/entry';
import { Jobs } from './jobs.ts';

/** So many slow calls run at a time; another then waits for one of them. */
const HELPERS = 2;

let started: Promise<SharedArrayBuffer> | undefined;

/**
 * Starts the helpers unless they run. Settles once they do, with where they take their calls from: a program that waits
 * in a call on its own mount can't start a thread any more.
 */
export function helpers(): Promise<SharedArrayBuffer> {
  started ??= start();
  return started;
}

async function start(): Promise<SharedArrayBuffer> {
  const { shared } = new Jobs();
  const entry = compiledEntry('fsbridge/aside/helper');
  const workers = Array.from(
    { length: HELPERS },
    () => new Worker(entry, { workerData: shared, execArgv: [] }),
  );
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  // They end with the process and don't keep it.
  for (const worker of workers) worker.unref();
  return shared;
}
