/**
 * The standard streams of a container or exec, between one process and any number of clients and the log.
 *
 * Output goes to every sink in the order in which it was read. When a sink is full the process's pipes are not read
 * until it has drained, so a slow client or disk holds the process back and memory stays bounded; a sink that goes
 * away stops counting. Input comes from clients, one after the other or mixed, and waits likewise when the process
 * does not read.
 */
import type { Readable, Writable } from 'node:stream';
import type { JailProcess } from '../runtime/runtime.ts';

/** Stream numbers of docker's multiplexed frames. */
export type StreamNumber = 1 | 2;

/** Takes a process's output. */
export interface OutputSink {
  /** Takes a chunk. False: full; `drained` will be called by the sink once. */
  write(stream: StreamNumber, chunk: Buffer): boolean;
  /** Set by the hub; the sink calls it when it has room again, or when it gives up. */
  drained?: () => void;
  /** No more output comes from this process. */
  end(): void;
}

/** Standard streams of a process that may not have started yet. */
export class ProcessIo {
  readonly #sinks = new Set<OutputSink>();
  readonly #full = new Set<OutputSink>();
  #sources: Readable[] = [];
  #stdin: Writable | undefined;
  #stdinEnded = false;
  #waitingForStdin: (() => void)[] = [];

  /** Adds a sink for output from now on. */
  add(sink: OutputSink): void {
    this.#sinks.add(sink);
    sink.drained = () => this.#release(sink);
  }

  /** Takes a sink out without ending it. */
  delete(sink: OutputSink): void {
    this.#sinks.delete(sink);
    this.#release(sink);
  }

  #release(sink: OutputSink): void {
    if (!this.#full.delete(sink) || this.#full.size > 0) return;
    for (const source of this.#sources) source.resume();
  }

  /** Connects a started process. Resolves when it has ended, all its output has been given to the sinks, and they were ended. */
  async connect(process: JailProcess): Promise<void> {
    this.#stdin = process.stdin;
    if (this.#stdin !== undefined) {
      // EPIPE: the process closed its input or ended; what clients still send is dropped.
      this.#stdin.on('error', () => {});
      if (this.#stdinEnded) this.#stdin.end();
    }
    for (const wake of this.#waitingForStdin.splice(0)) wake();
    const sources: [StreamNumber, Readable | undefined][] = [
      [1, process.stdout],
      [2, process.stderr],
    ];
    const ends: Promise<void>[] = [];
    this.#sources = [];
    for (const [stream, source] of sources) {
      if (source === undefined) continue;
      this.#sources.push(source);
      ends.push(
        new Promise((resolve) => {
          source.on('data', (chunk: Buffer) => this.#spread(stream, chunk));
          source.once('end', resolve);
          source.once('close', resolve);
          // EIO is how a terminal says that its last process has gone.
          source.on('error', () => resolve());
        }),
      );
    }
    if (this.#full.size > 0) for (const source of this.#sources) source.pause();
    await Promise.all(ends);
    // A terminal hangs up a little before its process has ended; clients ask for the exit code once their stream is over.
    await process.exited;
    this.end();
  }

  #spread(stream: StreamNumber, chunk: Buffer): void {
    for (const sink of this.#sinks) {
      if (sink.write(stream, chunk) || this.#full.has(sink)) continue;
      this.#full.add(sink);
      if (this.#full.size === 1) for (const source of this.#sources) source.pause();
    }
  }

  /** Stops reading a process that has ended although others still hold its pipes open. */
  abandon(): void {
    for (const source of this.#sources) source.destroy();
  }

  /** Ends all sinks and forgets the process, also when it never started. */
  end(): void {
    this.#sources = [];
    this.#stdin = undefined;
    this.#stdinEnded = false;
    for (const wake of this.#waitingForStdin.splice(0)) wake();
    const sinks = [...this.#sinks];
    this.#sinks.clear();
    this.#full.clear();
    for (const sink of sinks) sink.end();
  }

  /** Resolves with the process's input when it has started; undefined when there is none or it has ended. */
  async input(): Promise<Writable | undefined> {
    if (this.#stdin === undefined && this.#sources.length === 0)
      await new Promise<void>((resolve) => this.#waitingForStdin.push(resolve));
    return this.#stdin;
  }

  /** Ends the process's input, now or as soon as it starts. */
  endInput(): void {
    this.#stdinEnded = true;
    this.#stdin?.end();
  }
}
