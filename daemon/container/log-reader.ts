/** Reads container logs back: the last N lines, a range of time, and on as the file grows. */
import { randomUUID } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';
import { errorCode } from '#common/errors';
import { rfc3339ToNano } from '../stamps.ts';
import { type ContainerLog, GZIP_SUFFIX } from './logs.ts';

const BLOCK_BYTES = 256 * 1024;
const NEWLINE = 10;

/** One line as it was logged. `text` ends with a newline unless the line was cut there. */
export interface LogLine {
  text: string;
  stream: 'stdout' | 'stderr';
  time: string;
  /** For --details. */
  attributes: Record<string, string>;
}

/** Which lines to read. */
export interface LogQuery {
  /** The last so many lines; undefined: all. */
  tail: number | undefined;
  sinceNano: bigint | undefined;
  untilNano: bigint | undefined;
  /** Wait for more until the container stops. */
  follow: boolean;
  stdout: boolean;
  stderr: boolean;
  /** Ends the reading: the client has gone. */
  signal: AbortSignal;
}

/** Yields batches of lines, oldest first. */
export async function* readLog(log: ContainerLog, query: LogQuery): AsyncGenerator<LogLine[]> {
  await log.flush();
  const wanted = (line: LogLine): boolean =>
    (line.stream === 'stdout' ? query.stdout : query.stderr) &&
    (query.sinceNano === undefined || rfc3339ToNano(line.time) >= query.sinceNano) &&
    (query.untilNano === undefined || rfc3339ToNano(line.time) <= query.untilNano);
  let [generation, files] = await log.whileStill(
    async (): Promise<[number, FileHandle[]]> => [log.generation, await openAll(log.path)],
  );
  try {
    const starts = await startOffsets(files, query.tail);
    for (const [index, file] of files.entries()) {
      if (index === files.length - 1) break;
      yield* readFile(file, starts[index]!, wanted, query);
    }
    let current = files.pop();
    let offset = starts.at(-1) ?? 0;
    for (;;) {
      const state = { offset };
      if (current) yield* readFile(current, offset, wanted, query, state);
      offset = state.offset;
      if (!query.follow || query.signal.aborted) break;
      if (log.generation !== generation || current === undefined) {
        await current?.close();
        [generation, current] = await log.whileStill(() => nextFile(log, generation));
        offset = 0;
        if (current) continue;
      }
      if (log.generation === generation && !log.live) break;
      await grown(log, query.signal, current, offset, generation);
    }
    await current?.close();
  } finally {
    for (const file of files) await file.close().catch(() => {});
  }
}

/** The file after the one that was the current one at a generation, and its generation; undefined when it is gone or not there yet. */
async function nextFile(
  log: ContainerLog,
  generation: number,
): Promise<[generation: number, file: FileHandle | undefined]> {
  const behind = log.generation - generation;
  const file = await openPart(log.path, Math.max(0, behind - 1)).catch(() => undefined);
  return [behind > 1 ? generation + 1 : log.generation, file];
}

/** The file of a log that was rotated `n` times since; what was compressed is unpacked into a file without a name. */
async function openPart(path: string, n: number): Promise<FileHandle> {
  if (n === 0) return open(path, 'r');
  try {
    return await open(`${path}.${n}`, 'r');
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
  const packed = await open(`${path}.${n}${GZIP_SUFFIX}`, 'r');
  const name = `${path}.${n}.${randomUUID()}`;
  const file = await open(name, 'wx+', 0o600);
  try {
    await rm(name);
    // The handle must outlive its stream.
    for await (const chunk of packed.createReadStream().pipe(createGunzip())) await file.appendFile(chunk);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Waits until there is something to read, the log was rotated, it ended, or the client went. */
async function grown(
  log: ContainerLog,
  signal: AbortSignal,
  file: FileHandle | undefined,
  offset: number,
  generation: number,
): Promise<void> {
  let wake = (): void => {};
  const woken = new Promise<void>((resolve) => {
    wake = resolve;
  });
  const unwatch = log.watch(wake);
  signal.addEventListener('abort', wake, { once: true });
  try {
    // Checked after watching, so that nothing falls between.
    const bytes = (await file?.stat())?.size ?? 0;
    if (bytes > offset || log.generation !== generation || !log.live || signal.aborted) return;
    await woken;
  } finally {
    unwatch();
    signal.removeEventListener('abort', wake);
  }
}

/** All files of a log, oldest first. */
async function openAll(path: string): Promise<FileHandle[]> {
  const files: FileHandle[] = [];
  for (let n = 0; ; n++) {
    try {
      files.unshift(await openPart(path, n));
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
      if (n > 0) return files;
    }
  }
}

/** Where to begin in each file so that `tail` lines remain in all together. */
async function startOffsets(files: FileHandle[], tail: number | undefined): Promise<number[]> {
  if (tail === undefined) return files.map(() => 0);
  const starts: number[] = [];
  let left = tail;
  for (const file of [...files].reverse()) {
    const { offset, lines } = await lastLines(file, left);
    starts.unshift(offset);
    left -= lines;
  }
  return starts;
}

async function lastLines(file: FileHandle, count: number): Promise<{ offset: number; lines: number }> {
  const { size } = await file.stat();
  const block = Buffer.alloc(Math.min(BLOCK_BYTES, size));
  let end = size;
  let lines = 0;
  if (count <= 0) return { offset: size, lines: 0 };
  while (end > 0) {
    const length = Math.min(block.length, end);
    await file.read(block, 0, length, end - length);
    for (let i = length - 1; i >= 0; i--) {
      if (block[i] !== NEWLINE) continue;
      // The newline that ends the last line is not the start of another.
      if (lines === count) return { offset: end - length + i + 1, lines: count };
      lines++;
    }
    end -= length;
  }
  return { offset: 0, lines };
}

async function* readFile(
  file: FileHandle,
  from: number,
  wanted: (line: LogLine) => boolean,
  query: LogQuery,
  state: { offset: number } = { offset: from },
): AsyncGenerator<LogLine[]> {
  const block = Buffer.allocUnsafe(BLOCK_BYTES);
  let rest = Buffer.alloc(0);
  let position = from;
  while (!query.signal.aborted) {
    const { bytesRead } = await file.read(block, 0, block.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    const data = Buffer.concat([rest, block.subarray(0, bytesRead)]);
    const end = data.lastIndexOf(NEWLINE) + 1;
    rest = data.subarray(end);
    // A line that is still being written is read again from its start the next time.
    state.offset = position - rest.length;
    const batch: LogLine[] = [];
    for (const line of data.toString('utf8', 0, end).split('\n')) {
      const parsed = line === '' ? undefined : parseLine(line);
      if (parsed && wanted(parsed)) batch.push(parsed);
    }
    if (batch.length > 0) yield batch;
  }
}

/** A damaged line (the machine lost power) is skipped. */
function parseLine(line: string): LogLine | undefined {
  try {
    const { log, stream, time, attrs } = JSON.parse(line);
    return typeof log === 'string' && typeof time === 'string'
      ? { text: log, stream, time, attributes: attrs ?? {} }
      : undefined;
  } catch {
    return undefined;
  }
}
