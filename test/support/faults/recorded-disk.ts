/**
 * What a disk can hold when the power goes. A recording disk (recording-disk.mjs) notes every write and every flush in their order;
 * whatever was written before the last flush is there, of what came after it any part may be, block by block.
 */
import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Rng, uniform } from '#common/rng';

const SERVER = fileURLToPath(new URL('recording-disk.mjs', import.meta.url));
/** What a disk writes whole or not at all. */
const BLOCK_BYTES = 4096;
/** How each file system is made and mounted. Only metadata are in order on this ext4: by default it promises more. */
const FILE_SYSTEMS: Record<string, { make: string[]; options: string }> = {
  ext4: { make: ['-q', '-F', '-E', 'nodiscard,lazy_itable_init=0'], options: 'loop,data=writeback' },
  xfs: { make: ['-q', '-f', '-K'], options: 'loop' },
  btrfs: { make: ['-q', '-f', '-K'], options: 'loop' },
};
const HEAD_BYTES = 16;
const ZEROES = 1;
const FLUSH = 2;

interface Change {
  isZeroes: boolean;
  /** Where the bytes are in the log. */
  from: number;
  length: number;
  position: number;
}

/** A mounted file system on a disk that remembers. */
export class RecordedDisk {
  readonly #folder: string;
  readonly #bytes: number;
  readonly #target: string;
  readonly #server: ChildProcess;

  private constructor(folder: string, bytes: number, target: string, server: ChildProcess) {
    this.#folder = folder;
    this.#bytes = bytes;
    this.#target = target;
    this.#server = server;
  }

  /** Makes a disk in `folder`, with a file system on it, mounted at `target`. */
  static async mount(
    folder: string,
    bytes: number,
    fileSystem: string,
    target: string,
  ): Promise<RecordedDisk> {
    mkdirSync(join(folder, 'served'));
    mkdirSync(target, { recursive: true });
    const args = [join(folder, 'served'), join(folder, 'log'), String(bytes)];
    // The tests' own options of Node would lead it to sources that it can't read.
    const server = fork(SERVER, args, { execArgv: [] });
    const [first] = (await Promise.race([once(server, 'message'), once(server, 'exit')])) as [unknown];
    if (first !== 'serving') throw new Error(`the recording disk ended with ${first}`);
    const disk = join(folder, 'served/disk');
    const { make, options } = FILE_SYSTEMS[fileSystem]!;
    execFileSync(`mkfs.${fileSystem}`, [...make, disk]);
    execFileSync('mount', ['-o', options, disk, target]);
    return new RecordedDisk(folder, bytes, target, server);
  }

  /** Now, as a time of {@link cut}. */
  get now(): number {
    return statSync(join(this.#folder, 'log')).size;
  }

  /** Ends the recording. */
  async unmount(): Promise<void> {
    const ended = once(this.#server, 'exit');
    execFileSync('umount', [this.#target]);
    execFileSync('umount', [join(this.#folder, 'served')]);
    await ended;
  }

  /**
   * Makes a file of what the disk can hold when the power goes at a time.
   * @param share how much of what was not flushed came through, between 0 and 1
   */
  cut(time: number, share: number, rng: Rng, path: string): void {
    const log = openSync(join(this.#folder, 'log'), 'r');
    const image = openSync(path, 'w');
    try {
      ftruncateSync(image, this.#bytes);
      let pending: Change[] = [];
      for (const change of changesIn(log, time)) {
        if (change !== 'flush') pending.push(change);
        else {
          for (const each of pending) apply(log, image, each);
          pending = [];
        }
      }
      for (const each of pending)
        for (const block of blocksOf(each)) if (uniform(rng) < share) apply(log, image, block);
    } finally {
      closeSync(log);
      closeSync(image);
    }
  }
}

function* changesIn(log: number, time: number): Generator<Change | 'flush'> {
  const head = Buffer.alloc(HEAD_BYTES);
  const end = Math.min(time, fstatSync(log).size);
  for (let at = 0; at < end; ) {
    readSync(log, head, 0, HEAD_BYTES, at);
    const kind = head.readUInt32LE(0);
    const length = head.readUInt32LE(4);
    at += HEAD_BYTES;
    if (kind === FLUSH) yield 'flush';
    else yield { isZeroes: kind === ZEROES, from: at, length, position: Number(head.readBigUInt64LE(8)) };
    if (kind === 0) at += length;
  }
}

function* blocksOf(change: Change): Generator<Change> {
  for (let at = 0; at < change.length; at += BLOCK_BYTES)
    yield {
      ...change,
      from: change.from + at,
      position: change.position + at,
      length: Math.min(BLOCK_BYTES, change.length - at),
    };
}

function apply(log: number, image: number, { isZeroes, from, length, position }: Change): void {
  const bytes = Buffer.alloc(length);
  if (!isZeroes) readSync(log, bytes, 0, length, from);
  writeSync(image, bytes, 0, length, position);
}
