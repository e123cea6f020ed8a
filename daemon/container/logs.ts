/**
 * A container's log, in docker's json-file layout: `{"log":"...\n","stream":"stdout","time":"..."}` per line, in
 * `ID-json.log` and, with rotation, `ID-json.log.1` (newest) and up, or `.1.gz` and up where they are compressed.
 *
 * The writer is a sink of the container's output. It cuts lines at 16 KiB (a cut line has no newline), gathers them and
 * writes one batch at a time, and holds the container back while too much waits for the disk. Readers use the files,
 * never the writer's memory; the writer only tells them that there is more, that the file was rotated, or that it ended.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { Clock } from '#common/clock';
import { errorCode } from '#common/errors';
import type { Log } from '#common/log';
import { LOG_LINE_BYTES_MAX, LOG_PENDING_BYTES_MAX } from '../limits.ts';
import { Stamps } from '../stamps.ts';
import type { OutputSink, StreamNumber } from './io.ts';
import { Turns } from './turns.ts';

const NEWLINE = 10;

/** Log options that matter to the file. */
export interface LogFileOptions {
  /** Bytes after which the file is rotated; Infinity never. */
  sizeMax: number;
  /** How many files are kept, the current one included. */
  filesMax: number;
  /** Files that were rotated are kept as gzip, `.1.gz` and up. */
  compress?: boolean;
  /** Lines that find so many bytes waiting for the disk are dropped, instead of holding the container back (mode=non-blocking). */
  bufferMax?: number;
  /** Written with each line, for `docker logs --details`. */
  attributes?: Record<string, string>;
}

/** A log that is written while its container runs. */
export class ContainerLog {
  readonly path: string;
  readonly #stamps: Stamps;
  readonly #log: Log;
  readonly #options: LogFileOptions;
  readonly #attributes: string;
  readonly #rests: [Buffer, Buffer] = [Buffer.alloc(0), Buffer.alloc(0)];
  #lines: string[] = [];
  #pendingBytes = 0;
  #file: FileHandle | undefined;
  #fileBytes = 0;
  #flushing: Promise<void> | undefined;
  #watchers = new Set<() => void>();
  #compressing: Promise<void> = Promise.resolve();
  #generation = 0;
  /** Rotations, and readers that open files: each file has one name while one of them works. */
  readonly #names = new Turns();
  #open = false;
  #run = 0;

  constructor(path: string, options: LogFileOptions, clock: Clock, log: Log) {
    this.path = path;
    this.#options = options;
    const attributes = Object.entries(options.attributes ?? {});
    this.#attributes = attributes.length > 0 ? `"attrs":${JSON.stringify(options.attributes)},` : '';
    this.#stamps = new Stamps(clock);
    this.#log = log;
  }

  /** Whether the container runs, so that followers should wait. */
  get live(): boolean {
    return this.#open;
  }

  /** Resolves when no file of the log is being compressed. */
  get settled(): Promise<void> {
    return this.#compressing;
  }

  /** Grows with each rotation: a reader whose number is older continues in the new file. */
  get generation(): number {
    return this.#generation;
  }

  /** Runs `work` while no file of the log gets another name. */
  whileStill<T>(work: () => Promise<T>): Promise<T> {
    return this.#names.take(work);
  }

  /** A time after all lines that were logged so far and before all that will be. */
  mark(): bigint {
    return this.#stamps.nano();
  }

  /** Calls `wake` whenever the file has grown, was rotated or was ended. */
  watch(wake: () => void): () => void {
    this.#watchers.add(wake);
    return () => void this.#watchers.delete(wake);
  }

  /** A sink for one run of the container. */
  begin(): OutputSink {
    this.#open = true;
    const run = ++this.#run;
    const sink: OutputSink = {
      write: (stream, chunk) => {
        this.#take(stream, chunk);
        if (this.#options.bufferMax !== undefined || this.#pendingBytes <= LOG_PENDING_BYTES_MAX) return true;
        void this.flush().then(() => sink.drained?.());
        return false;
      },
      end: () => void this.#end(run),
    };
    return sink;
  }

  #take(stream: StreamNumber, chunk: Buffer): void {
    const rest = this.#rests[stream - 1]!;
    const data = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let from = 0;
    for (;;) {
      const at = data.indexOf(NEWLINE, from);
      const end = at < 0 ? data.length : at + 1;
      while (end - from > LOG_LINE_BYTES_MAX) {
        const cut = characterBoundary(data, from + LOG_LINE_BYTES_MAX, from);
        this.#line(stream, data.toString('utf8', from, cut));
        from = cut;
      }
      if (at < 0) break;
      this.#line(stream, data.toString('utf8', from, end));
      from = end;
    }
    // A copy, since the chunk belongs to the pipe's pool.
    this.#rests[stream - 1] = Buffer.from(data.subarray(from));
    if (this.#lines.length > 0) void this.flush();
  }

  #line(stream: StreamNumber, text: string): void {
    const name = stream === 1 ? 'stdout' : 'stderr';
    const line = `{"log":${JSON.stringify(text)},"stream":"${name}",${this.#attributes}"time":"${this.#stamps.text()}"}\n`;
    // As dockerd's ring: a line that alone is larger than the buffer still goes into an empty one.
    const { bufferMax } = this.#options;
    if (bufferMax !== undefined && this.#pendingBytes > 0 && this.#pendingBytes + line.length > bufferMax)
      return;
    this.#lines.push(line);
    this.#pendingBytes += line.length;
  }

  /** Resolves when all lines taken so far are in the file. */
  flush(): Promise<void> {
    this.#flushing ??= this.#writeOut().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async #writeOut(): Promise<void> {
    try {
      while (this.#lines.length > 0) {
        const lines = this.#lines;
        this.#lines = [];
        this.#pendingBytes = 0;
        await this.#writeLines(lines);
        for (const wake of this.#watchers) wake();
      }
    } catch (error) {
      // A full disk must not stop the container: its output is lost from here, and the daemon's log says so.
      this.#log.error({ path: this.path, error }, 'container log could not be written');
      this.#lines = [];
      this.#pendingBytes = 0;
    }
  }

  /** Writes lines in batches that end where the file is full. */
  async #writeLines(lines: string[]): Promise<void> {
    let batch = '';
    for (const line of lines) {
      if (this.#fileBytes + batch.length >= this.#options.sizeMax) {
        await this.#append(Buffer.from(batch));
        batch = '';
        await this.#names.take(() => this.#rotate());
      }
      batch += line;
    }
    await this.#append(Buffer.from(batch));
  }

  async #append(batch: Buffer): Promise<void> {
    if (this.#file === undefined) {
      this.#file = await open(this.path, 'a', 0o640);
      this.#fileBytes = (await this.#file.stat()).size;
    }
    await this.#file.appendFile(batch);
    this.#fileBytes += batch.length;
  }

  async #rotate(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
    this.#fileBytes = 0;
    const { filesMax, compress } = this.#options;
    // Of the last rotation, which was long ago unless the disk is behind.
    await this.#compressing;
    if (filesMax === 1) await rm(this.path, { force: true });
    for (const end of ['', GZIP_SUFFIX]) {
      await rm(`${this.path}.${filesMax - 1}${end}`, { force: true });
      for (let n = filesMax - 1; n > 1; n--)
        await renameIfThere(`${this.path}.${n - 1}${end}`, `${this.path}.${n}${end}`);
    }
    if (filesMax > 1) await renameIfThere(this.path, `${this.path}.1`);
    if (compress && filesMax > 1)
      this.#compressing = compressFile(`${this.path}.1`).catch((error) =>
        this.#log.warn(
          { path: this.path, error },
          'a rotated log could not be compressed: it stays as it is',
        ),
      );
    this.#generation++;
  }

  /** Writes what is left and tells followers that no more comes, unless the container was started again meanwhile. */
  async #end(run: number): Promise<void> {
    for (const stream of [1, 2] as const) {
      const rest = this.#rests[stream - 1]!;
      if (rest.length > 0) this.#line(stream, `${rest.toString('utf8')}\n`);
      this.#rests[stream - 1] = Buffer.alloc(0);
    }
    await this.#compressing;
    // Twice: the first may be a flush whose last look at the lines is already past.
    await this.flush();
    await this.flush();
    if (run !== this.#run) return;
    await this.#file?.close().catch(() => {});
    this.#file = undefined;
    this.#open = false;
    for (const wake of this.#watchers) wake();
  }
}

/** What the names of compressed files end in. */
export const GZIP_SUFFIX = '.gz';

async function renameIfThere(from: string, to: string): Promise<void> {
  await rename(from, to).catch((error) => {
    if (errorCode(error) !== 'ENOENT') throw error;
  });
}

/** Replaces a file by its compressed form. The file goes last, so that readers always find one of the two. */
async function compressFile(path: string): Promise<void> {
  const part = `${path}${GZIP_SUFFIX}.part`;
  try {
    await pipeline(createReadStream(path), createGzip(), createWriteStream(part, { mode: 0o640 }));
    await rename(part, `${path}${GZIP_SUFFIX}`);
    await rm(path, { force: true });
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}

/** The last start of a UTF-8 character at or before `at`, so that no character is cut in two; `at` itself for other bytes. */
function characterBoundary(data: Buffer, at: number, from: number): number {
  for (let back = 0; back < 4 && at - back > from; back++)
    if ((data[at - back]! & 0xc0) !== 0x80) return at - back;
  return at;
}

/** What `--log-opt labels=...`, `env=...` and `tag=...` add to each line (moby: logger.Info.ExtraAttributes). */
export function logAttributes(
  options: Record<string, string>,
  container: { id: string; name: string; labels: Record<string, string>; env: string[] },
): Record<string, string> {
  const wanted = (list: string | undefined, pattern: string | undefined): ((key: string) => boolean) => {
    const names = new Set((list ?? '').split(',').filter((name) => name !== ''));
    const expression = pattern ? new RegExp(pattern) : undefined;
    return (key) => names.has(key) || expression?.test(key) === true;
  };
  const label = wanted(options.labels, options['labels-regex']);
  const variable = wanted(options.env, options['env-regex']);
  const found = Object.entries(container.labels).filter(([key]) => label(key));
  for (const entry of container.env) {
    const at = entry.indexOf('=');
    if (at > 0 && variable(entry.slice(0, at))) found.push([entry.slice(0, at), entry.slice(at + 1)]);
  }
  const { tag } = options;
  if (tag)
    found.push([
      'tag',
      tag
        .replaceAll(/\{\{ *\.ID *\}\}/g, container.id.slice(0, 12))
        .replaceAll(/\{\{ *\.FullID *\}\}/g, container.id)
        .replaceAll(/\{\{ *\.Name *\}\}/g, container.name),
    ]);
  return Object.fromEntries(found);
}
