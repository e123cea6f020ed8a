/**
 * What a disk can hold when the power goes. A recording disk (recording-disk.mjs) notes every write and every flush in their order;
 * whatever was written before the last flush is there, of what came after it any part may be, block by block.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
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

/** $1 is where the disk is served, $2 the log, $3 its size, $4 node, $5 the server, $6 the file system, $7 how it is mounted, $8 where. */
const MOUNT_AND_RUN = `
"$4" "$5" "$1" "$2" "$3" & echo $! >"$2.pid"
until [ -e "$1/disk" ]; do kill -0 $! || exit 1; sleep 0.05; done
"mkfs.$6" $MAKE_OPTIONS "$1/disk" && mount -o "$7" "$1/disk" "$8" && shift 8 && exec "$@"`;

/** A file system on a disk that remembers, for one program. */
export class RecordedDisk {
  readonly #folder: string;
  readonly #bytes: number;
  readonly #fileSystem: string;
  readonly #target: string;

  /** @param folder where the log is kept @param target where the program finds the file system */
  constructor(folder: string, bytes: number, fileSystem: string, target: string) {
    this.#folder = folder;
    this.#bytes = bytes;
    this.#fileSystem = fileSystem;
    this.#target = target;
    mkdirSync(this.#served);
    mkdirSync(target, { recursive: true });
  }

  /**
   * What a program is started by that is to use the disk. All of it is in a mount namespace of its own: others made
   * meanwhile would have copies of the mounts, and keep them in use.
   */
  get wrapper(): string[] {
    const { make, options } = FILE_SYSTEMS[this.#fileSystem]!;
    const script = MOUNT_AND_RUN.replace('$MAKE_OPTIONS', make.join(' '));
    return ['unshare', '--mount', 'sh', '-c', script, 'sh', this.#served, this.#log].concat([
      String(this.#bytes),
      process.execPath,
      SERVER,
      this.#fileSystem,
      options,
      this.#target,
    ]);
  }

  /** Now, as a time of {@link cut}. */
  get now(): number {
    return statSync(this.#log).size;
  }

  /** Where this process finds a file of the disk. */
  path(name: string): string {
    return join('/proc', this.#server, 'root', this.#target, name);
  }

  /** Ends the recording, when the program has ended. */
  end(): void {
    const unmount = ['umount', this.#target, this.#served];
    execFileSync('nsenter', ['--mount', '--target', this.#server, ...unmount]);
  }

  get #server(): string {
    return readFileSync(`${this.#log}.pid`, 'utf8').trim();
  }

  get #served(): string {
    return join(this.#folder, 'served');
  }

  get #log(): string {
    return join(this.#folder, 'log');
  }

  /**
   * Makes a file of what the disk can hold when the power goes at a time.
   * @param share how much of what was not flushed came through, between 0 and 1
   */
  cut(time: number, share: number, rng: Rng, path: string): void {
    const log = openSync(this.#log, 'r');
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
