/**
 * Threads for work on many files: unpacking layers, copying and hashing what a build adds. Such work is one system
 * call after the other and would hold up everything else in the daemon. Threads live as long as there is work.
 */
import { Worker } from 'node:worker_threads';
import { compiledEntry } from '#common/entry';
import { DrydockError } from '#common/errors';
import type { CopyJob, FileJob, FileJobResult, HashJob, UnpackJob, UnpackResult } from './file-worker.ts';

/** Layers of one image are independent, so as many are unpacked at a time as there may be cores to spare. */
const WORKERS_MAX = 2;

interface WaitingJob {
  job: FileJob & { id: number };
  done: (result: FileJobResult) => void;
  failed: (error: Error) => void;
}

/** See the module's head. */
export class FileWorkers {
  readonly #waiting: WaitingJob[] = [];
  readonly #workers = new Set<Worker>();
  #nextId = 0;

  /** Unpacks an archive into a folder. @throws ERR_BAD_ARCHIVE, ERR_NO_SPACE */
  async unpack(job: Omit<UnpackJob, 'kind'>): Promise<UnpackResult> {
    return (await this.#run({ ...job, kind: 'unpack' })).unpacked!;
  }

  /** Copies files into a tree. @throws ERR_BAD_ARCHIVE, ERR_NO_SPACE */
  async copy(job: Omit<CopyJob, 'kind'>): Promise<void> {
    await this.#run({ ...job, kind: 'copy' });
  }

  /** A digest of files as they would be copied: names, kinds, modes and content. */
  async hash(job: Omit<HashJob, 'kind'>): Promise<string> {
    return (await this.#run({ ...job, kind: 'hash' })).digest!;
  }

  /** Writes everything of the file system that holds `path` to its disk. */
  async sync(path: string): Promise<void> {
    await this.#run({ kind: 'sync', path });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#workers].map((worker) => worker.terminate()));
  }

  async #run(job: FileJob): Promise<FileJobResult> {
    const result = await new Promise<FileJobResult>((done, failed) => {
      this.#waiting.push({ job: { ...job, id: this.#nextId++ }, done, failed });
      if (this.#workers.size < WORKERS_MAX) this.#start();
    });
    if (result.error) throw new DrydockError(result.error.code ?? 'ERR_BAD_ARCHIVE', result.error.message);
    return result;
  }

  #start(): void {
    const worker = new Worker(compiledEntry('daemon/image/file-worker'), {
      // Node would warn at each close of a descriptor that a native call has opened.
      trackUnmanagedFds: false,
      // Flags of this process (a test runner's conditions, an inspector) are not the worker's.
      execArgv: [],
    });
    this.#workers.add(worker);
    let current: WaitingJob | undefined;
    const next = (): void => {
      current = this.#waiting.shift();
      if (current) worker.postMessage(current.job);
      else {
        this.#workers.delete(worker);
        void worker.terminate();
      }
    };
    worker.on('message', (result: FileJobResult) => {
      current?.done(result);
      next();
    });
    worker.on('error', (error) => current?.failed(error));
    worker.on('exit', () => {
      this.#workers.delete(worker);
      current?.failed(new Error('the worker for files ended'));
      if (this.#waiting.length > 0 && this.#workers.size === 0) this.#start();
    });
    next();
  }
}
