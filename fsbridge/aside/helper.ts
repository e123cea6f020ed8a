/** A thread that makes the calls of jobs.ts and answers for them. It only ever waits for a job or in a call. */
import { parentPort, workerData } from 'node:worker_threads';
import { writeReply } from '#common/native/fuse';
import { addressOf } from '#common/native/libc';
import { PosixFs } from '../backing/posix-linux.ts';
import { allocate, type Memory } from '../memory.ts';
import { WRITE_BYTES_MAX } from '../ops/init.ts';
import { EIO } from '../wire/errno.ts';
import { OUT_HEADER_BYTES } from '../wire/request.ts';
import { putUint64 } from '../wire/stat.ts';
import { type Job, Jobs, READ, SYNC, SYNC_ALL } from './jobs.ts';

/** For calls that name descriptors only: there is no root to look names up in. */
const host = new PosixFs(-1);

/** Makes the call; bytes put behind the reply's header, or a negative error. */
function perform(job: Job, reply: Memory): number {
  const [a = 0, b = 0, c = 0] = job.operands;
  switch (job.call) {
    case SYNC:
      return host.sync(a, b !== 0);
    case SYNC_ALL:
      return new PosixFs(a).syncAll();
    case READ:
      return host.read(a, reply, OUT_HEADER_BYTES, c, b);
    default:
      return -EIO;
  }
}

function run(shared: SharedArrayBuffer): void {
  const jobs = new Jobs(shared);
  const reply = allocate(OUT_HEADER_BYTES + WRITE_BYTES_MAX, addressOf);
  parentPort?.postMessage('ready');
  const answer = (job: Job): void => {
    const result = perform(job, reply);
    const length = OUT_HEADER_BYTES + Math.max(0, result);
    reply.words[0] = length;
    reply.words[1] = Math.min(0, result);
    putUint64(reply.words, 2, job.unique);
    // Whoever asked may be gone by now, and the mount too.
    writeReply(job.device, reply.address, length);
  };
  for (;;) jobs.next(answer);
}

run(workerData as SharedArrayBuffer);
