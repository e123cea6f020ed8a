/**
 * Threads for work on many files: unpacking layers, copying and hashing what a build adds. Such work is one system
 * call after the other and would hold up everything else in the daemon. A thread that has nothing to do is kept for a
 * while, since starting one costs more than most jobs.
 */
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '#common/clock';
import { compiledEntry } from '#common/entry';
import { DrydockError } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import type {
  CopyJob,
  FileJob,
  FileJobResult,
  FileOrder,
  HashJob,
  MakeJob,
  UnpackJob,
  UnpackResult,
} from './file-worker.ts';

/** Layers of one image are independent, so as many are unpacked at a time as there may be cores to spare. */
const WORKERS_MAX = 2;
const IDLE_MS_MAX = 10_000;

interface WaitingJob {
  job: FileJob;
  stop: Int32Array;
  done: (result: FileJobResult) => void;
  failed: (error: Error) => void;
}

interface Thread {
  worker: Worker;
  current: WaitingJob | undefined;
}

/** See the module's head. */
export class FileWorkers {
  readonly #waiting: WaitingJob[] = [];
  readonly #workers = new Set<Worker>();
  readonly #idle: Thread[] = [];
  readonly #clock: Clock;
  readonly maps: UserMaps | undefined;
  #expire: Timer | undefined;

  /** @param maps how the users of containers are those of the machine, when they are others. */
  constructor(clock: Clock, maps: UserMaps | undefined) {
    this.maps = maps;
    this.#clock = clock;
  }

  /** Unpacks an archive into a folder. @throws ERR_BAD_ARCHIVE, ERR_NO_SPACE */
  async unpack(job: Omit<UnpackJob, 'kind'>, signal?: AbortSignal): Promise<UnpackResult> {
    return (await this.#run({ ...job, kind: 'unpack' }, signal)).unpacked!;
  }

  /** Makes a layer of files that are on this machine. @throws ERR_BAD_ARCHIVE, ERR_NO_SPACE, ERR_HOST_IMAGE */
  async make(job: Omit<MakeJob, 'kind'>, signal?: AbortSignal): Promise<UnpackResult> {
    return (await this.#run({ ...job, kind: 'make' }, signal)).unpacked!;
  }

  /** Copies files into a tree. @throws ERR_BAD_ARCHIVE, ERR_NO_SPACE */
  async copy(job: Omit<CopyJob, 'kind'>, signal?: AbortSignal): Promise<void> {
    await this.#run({ ...job, kind: 'copy' }, signal);
  }

  /** A digest of files as they would be copied: names, kinds, modes and content. */
  async hash(job: Omit<HashJob, 'kind'>, signal?: AbortSignal): Promise<string> {
    return (await this.#run({ ...job, kind: 'hash' }, signal)).digest!;
  }

  /** Writes everything of the file system that holds `path` to its disk. */
  async sync(path: string): Promise<void> {
    await this.#run({ kind: 'sync', path });
  }

  async close(): Promise<void> {
    this.#expire?.cancel();
    this.#waiting.length = 0;
    await Promise.all([...this.#workers].map((worker) => worker.terminate()));
  }

  /** @throws the signal's reason when that comes first; what the job has written is the caller's to remove */
  async #run(job: FileJob, signal?: AbortSignal): Promise<FileJobResult> {
    signal?.throwIfAborted();
    const stop = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    const onAbort = (): void => void Atomics.store(stop, 0, 1);
    signal?.addEventListener('abort', onAbort);
    const result = await new Promise<FileJobResult>((done, failed) => {
      this.#waiting.push({ job, stop, done, failed });
      this.#dispatch();
    }).finally(() => signal?.removeEventListener('abort', onAbort));
    if (result.error && signal?.aborted) throw signal.reason;
    if (result.error) throw new DrydockError(result.error.code ?? 'ERR_BAD_ARCHIVE', result.error.message);
    return result;
  }

  /** Gives waiting jobs to threads: to idle ones first, to new ones while there may be more. */
  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const thread = this.#idle.pop() ?? (this.#workers.size < WORKERS_MAX ? this.#start() : undefined);
      if (!thread) return;
      thread.current = this.#waiting.shift()!;
      thread.worker.ref();
      const { job, stop } = thread.current;
      thread.worker.postMessage({ job, stop } satisfies FileOrder);
    }
    this.#expire?.cancel();
    this.#expire = this.#clock.arm(this.#clock.now() + IDLE_MS_MAX, () => {
      for (const { worker } of this.#idle.splice(0)) void worker.terminate();
    });
  }

  #start(): Thread {
    const worker = new Worker(compiledEntry('daemon/image/file-worker'), {
      // Node would warn at each close of a descriptor that a native call has opened.
      trackUnmanagedFds: false,
      // Flags of this process (a test runner's conditions, an inspector) are not the worker's.
      execArgv: [],
      workerData: this.maps,
    });
    const thread: Thread = { worker, current: undefined };
    this.#workers.add(worker);
    worker.on('message', (result: FileJobResult) => {
      const { current } = thread;
      thread.current = undefined;
      // An idle thread does not keep the process alive.
      worker.unref();
      this.#idle.push(thread);
      this.#dispatch();
      current?.done(result);
    });
    worker.on('error', (error) => thread.current?.failed(error));
    worker.on('exit', () => {
      this.#workers.delete(worker);
      const at = this.#idle.indexOf(thread);
      if (at >= 0) this.#idle.splice(at, 1);
      thread.current?.failed(new Error('the worker for files ended'));
      this.#dispatch();
    });
    return thread;
  }
}
