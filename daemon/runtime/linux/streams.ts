/**
 * Standard streams of a jail's process: real pipes, since /dev/stdout must be openable, which a socket is not; or a
 * terminal, of which the daemon holds the master.
 *
 * Node has no stream for a terminal's master that loses nothing. libuv takes a hang-up after a short read for the end,
 * though the terminal may still hold output, and it would write in blocking mode, so that a container that does not
 * read could stop the daemon. Hence here: reads are by tty.ReadStream until the end, and then what the terminal still
 * holds is read at once (the kernel buffers some 64 KiB at most); writes are non-blocking and tried again while the
 * terminal is full.
 */
import { closeSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import { Readable, Writable } from 'node:stream';
import { ReadStream } from 'node:tty';
import type { Clock } from '#common/clock';
import { errorCode } from '#common/errors';

/** The daemon's ends of a process's standard streams. */
export interface ProcessStreams {
  stdin: Writable | undefined;
  stdout: Readable;
  stderr: Readable | undefined;
  resize(rows: number, columns: number): void;
  /** Frees the descriptors; what was not read is lost. */
  destroy(): void;
}

interface End {
  read: number;
  write: number;
}

/** What streams ask of the system, beside Node. */
export interface StreamSystem {
  /** A pipe whose ends no other program inherits. */
  pipe(): End;
  setNonBlocking(fd: number): void;
  setWindowSize(fd: number, rows: number, columns: number): void;
  /** Writes what fits now; 0 when nothing does. @throws SyscallError */
  writeSome(fd: number, bytes: Uint8Array): number;
}

/** Three pipes, not yet wrapped in streams. */
export class PipeSet {
  readonly #system: StreamSystem;
  readonly #ends: readonly [End, End, End];

  constructor(system: StreamSystem) {
    this.#system = system;
    const made: End[] = [];
    try {
      this.#ends = [add(system.pipe()), add(system.pipe()), add(system.pipe())];
    } catch (error) {
      for (const { read, write } of made) for (const fd of [read, write]) closeSync(fd);
      throw error;
    }
    function add(end: End): End {
      made.push(end);
      return end;
    }
  }

  /** The ends for descriptors 0 to 2 of the process. */
  get childEnds(): [number, number, number] {
    const [stdin, stdout, stderr] = this.#ends;
    return [stdin.read, stdout.write, stderr.write];
  }

  /** The reading ends of standard output and standard error. */
  get outputs(): [stdout: number, stderr: number] {
    return [this.#ends[1].read, this.#ends[2].read];
  }

  /** The writing end of standard input. */
  get input(): number {
    return this.#ends[0].write;
  }

  closeChildEnds(): void {
    for (const fd of this.childEnds) closeSync(fd);
  }

  /** Closes the daemon's ends, which were not wrapped. */
  closeOwnEnds(): void {
    const [stdin, stdout, stderr] = this.#ends;
    for (const fd of [stdin.write, stdout.read, stderr.read]) closeSync(fd);
  }

  /** What the process has written to its error stream by now, before the daemon's ends are wrapped. */
  lastWords(bytesMax: number): string {
    const [, , stderr] = this.#ends;
    const words = Buffer.alloc(bytesMax);
    try {
      this.#system.setNonBlocking(stderr.read);
      return words.toString('utf8', 0, readSync(stderr.read, words, 0, bytesMax, null)).trim();
    } catch {
      return '';
    }
  }

  /** Wraps the daemon's ends. Without `wantsStdin` the process reads the end at once. */
  open(wantsStdin: boolean): ProcessStreams {
    if (!wantsStdin) closeSync(this.input);
    const [stdout, stderr] = this.outputs;
    return openPipeStreams({ stdin: wantsStdin ? this.input : undefined, stdout, stderr });
  }
}

/** Wraps the daemon's ends of a process's pipes, which then belong to the streams. */
export function openPipeStreams(fds: {
  stdin: number | undefined;
  stdout: number;
  stderr: number;
}): ProcessStreams {
  let stdin: Socket | undefined;
  if (fds.stdin !== undefined) {
    stdin = new Socket({ fd: fds.stdin, readable: false, writable: true });
    // The process may close its end at any time: that is its right and no error of ours.
    stdin.on('error', () => {});
  }
  const stdout = openOutput(fds.stdout);
  const stderr = openOutput(fds.stderr);
  return {
    stdin,
    stdout,
    stderr,
    resize: () => {},
    destroy() {
      for (const stream of [stdin, stdout, stderr]) stream?.destroy();
    },
  };
}

/**
 * A stream that reads nothing, not even the end, until somebody wants it. An ordinary Socket reads ahead, and one that
 * meets the end with nothing before it emits `end` to nobody: whoever comes later would wait for ever.
 */
function openOutput(fd: number): Socket {
  const options = { fd, readable: true, writable: false, manualStart: true };
  return new Socket(options);
}

/**
 * Frees the streams of a process that has ended with its jail. Output that somebody reads still holds the process's last words, and
 * frees itself at its end, which is near.
 */
export function releaseStreams({ stdin, stdout, stderr }: ProcessStreams): void {
  stdin?.destroy();
  for (const output of [stdout, stderr]) if (output?.readableFlowing === null) output.destroy();
}

/** Reads of a terminal return at most a line buffer's worth. */
const DRAIN_BYTES = 65_536;
const RETRY_MS_MIN = 2;
const RETRY_MS_MAX = 100;

/** The streams of a terminal, whose master then belongs to them. */
export function openTerminalStreams(master: number, clock: Clock, system: StreamSystem): ProcessStreams {
  system.setNonBlocking(master);
  const source = new ReadStream(master);
  let open = true;
  source.pause();
  const stdout = new Readable({
    read: () => void source.resume(),
    destroy(error, done) {
      source.destroy();
      done(error);
    },
  });
  const end = (): void => {
    if (!open) return;
    open = false;
    for (const chunk of drain(master)) stdout.push(chunk);
    stdout.push(null);
    source.destroy();
  };
  source.on('data', (chunk: Buffer) => {
    // One chunk for one read: push() may itself ask for more.
    source.pause();
    stdout.push(chunk);
  });
  source.on('end', end);
  // A hang-up: no process has the terminal open any more.
  source.on('error', end);
  source.on('close', () => {
    open = false;
  });
  const stdin = new Writable({
    write(chunk: Buffer, _encoding, done) {
      writeAll(chunk, RETRY_MS_MIN, done);
    },
  });
  stdin.on('error', () => {});
  const writeAll = (bytes: Uint8Array, retryMs: number, done: (error?: Error | null) => void): void => {
    try {
      const taken = open ? system.writeSome(master, bytes) : bytes.length;
      if (taken === bytes.length) {
        done();
        return;
      }
      const wait = taken > 0 ? RETRY_MS_MIN : Math.min(retryMs * 2, RETRY_MS_MAX);
      clock.arm(clock.now() + wait, () => writeAll(bytes.subarray(taken), wait, done));
    } catch (error) {
      // The process has hung up; what was meant for it has no reader.
      done(errorCode(error) === 'EIO' ? null : (error as Error));
    }
  };
  return {
    stdin,
    stdout,
    stderr: undefined,
    resize(rows, columns) {
      if (open) system.setWindowSize(master, rows, columns);
    },
    destroy() {
      stdin.destroy();
      stdout.destroy();
    },
  };
}

/** What a terminal still holds after its end was told. */
function* drain(master: number): Generator<Buffer> {
  for (;;) {
    const chunk = Buffer.alloc(DRAIN_BYTES);
    let length: number;
    try {
      length = readSync(master, chunk, 0, DRAIN_BYTES, null);
    } catch {
      return;
    }
    if (length === 0) return;
    yield chunk.subarray(0, length);
  }
}
