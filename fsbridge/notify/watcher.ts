/**
 * The watching thread of one mount: waits for changes on the host, asks the server what to do about them, and does it.
 * A thread of its own because dropping caches and repeating a change make the kernel wait for the server.
 *
 * It reaches the mount by a private descriptor of its root, which also works where the container's way in is read-only.
 * That descriptor keeps the file system alive, so the thread also watches the table of mounts and ends when the mount
 * that it belongs to is gone.
 */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { readEvents, threadId, waitEvents } from '#common/native/fanotify';
import * as fs from '#common/native/fs';
import { closeFd, writeReply } from '#common/native/fuse';
import { addressOf } from '#common/native/libc';
import { allocate, type Memory } from '../memory.ts';
import { parseMountInfo } from '../mount/mountinfo.ts';
import { putIncEpoch, putInvalEntry, putInvalInode } from '../wire/notify.ts';
import * as S from '../wire/stat.ts';
import type { Action } from './actions.ts';
import { withoutThread } from './events.ts';
import { EVENT_BYTES_MAX, Exchange } from './exchange.ts';

/** What the owner gives. */
export interface WatcherInput {
  watchFd: number;
  /** The device, for notifications; the server closes it. */
  fuseFd: number;
  /** A private mount of the file system. */
  treeFd: number;
  /** The file system's device as `major:minor`, and where it is mounted. */
  device: string;
  target: string;
  shared: SharedArrayBuffer;
}

/** Changes that follow each other within this time are looked at together; longer while the container is at work. */
const GATHER_MS = 8;
const GATHER_BUSY_MS = 32;
const PATH_BYTES = 8192;

class Watcher {
  readonly #input: WatcherInput;
  readonly #exchange: Exchange;
  readonly #events: Memory = allocate(EVENT_BYTES_MAX, addressOf);
  readonly #message: Memory = allocate(512, addressOf);
  readonly #path: Memory = allocate(PATH_BYTES, addressOf);
  readonly #path2: Memory = allocate(PATH_BYTES, addressOf);
  readonly #pause = new Int32Array(new SharedArrayBuffer(4));

  constructor(input: WatcherInput) {
    this.#input = input;
    this.#exchange = new Exchange(input.shared);
    this.#exchange.watcherTid = threadId();
  }

  run(): void {
    const { watchFd, treeFd } = this.#input;
    const mountInfoFd = openSync('/proc/self/mountinfo', 'r');
    // What changed since the mount was made, until here, would not be told.
    let gatherMs = GATHER_MS;
    let mounted = this.#mounted();
    while (mounted) {
      const { events, mounts } = waitEvents(watchFd, mountInfoFd);
      if (mounts) mounted = this.#mounted();
      if (!events) continue;
      Atomics.wait(this.#pause, 0, 0, gatherMs);
      const count = readEvents(watchFd, this.#events.address, this.#events.bytes.length);
      if (count <= 0) break;
      // Most are the server's own doing, for the container: they concern nobody.
      const others = withoutThread(this.#events.bytes.subarray(0, count), this.#exchange.serverTid);
      gatherMs = others === 0 ? GATHER_BUSY_MS : GATHER_MS;
      if (others === 0) continue;
      this.#exchange.putEvents(this.#events.bytes.subarray(0, others));
      if (fs.fstatfs(treeFd, this.#message.address) < 0) break;
      for (const action of this.#exchange.takeActions()) this.#perform(action);
    }
    closeSync(mountInfoFd);
    closeFd(treeFd);
    closeFd(watchFd);
  }

  #mounted(): boolean {
    const { device, target } = this.#input;
    const entries = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
    return entries.some((entry) => entry.device === device && entry.target === target);
  }

  #perform(action: Action): void {
    const { treeFd } = this.#input;
    const { words, bytes } = this.#message;
    switch (action.do) {
      case 'dropInode':
        this.#send(putInvalInode(words, action.node));
        return;
      case 'dropEntry':
        this.#send(putInvalEntry(words, bytes, action.parent, action.name));
        return;
      case 'dropAll':
        this.#send(putIncEpoch(words));
        return;
      case 'modify':
        fs.truncate(put(this.#path, `/proc/self/fd/${treeFd}/${action.path}`), action.size);
        return;
      case 'attrib':
        fs.fchmodat(treeFd, put(this.#path, action.path === '' ? '.' : action.path), action.mode);
        return;
      case 'create':
        this.#create(action.path, action.type);
        return;
      case 'delete':
        fs.unlinkat(treeFd, put(this.#path, action.path), action.dir ? fs.AT_REMOVEDIR : 0);
        return;
      case 'move':
        fs.renameat2(treeFd, put(this.#path, action.from), treeFd, put(this.#path2, action.to), 0);
        return;
    }
  }

  #create(path: string, type: number): void {
    const { treeFd } = this.#input;
    if (type === S.S_IFDIR) fs.mkdirat(treeFd, put(this.#path, path), 0o700);
    else if (type === S.S_IFLNK) fs.symlinkat(put(this.#path2, 'x'), treeFd, put(this.#path, path));
    else fs.mknodat(treeFd, put(this.#path, path), type | 0o600, 0);
  }

  #send(length: number): void {
    writeReply(this.#input.fuseFd, this.#message.address, length);
  }
}

function put(memory: Memory, text: string): number {
  memory.bytes[memory.bytes.write(text, 0, 'latin1')] = 0;
  return memory.address;
}

if (parentPort !== null) new Watcher(workerData as WatcherInput).run();
