/** Watching folders by fanotify(7), and the names that its events have for them. */
import * as fan from '#common/native/fanotify';
import { AT_FDCWD, close, fstatfs, openat } from '#common/native/fs';
import { addressOf } from '#common/native/libc';
import { allocate, type Memory } from '../memory.ts';
import type { Watch } from './notifier.ts';

const O_PATH_CLOEXEC = 0o12000000;
const PATH_BYTES = 4096;
/** f_fsid in struct statfs. */
const FSID = 56;

export class FanotifyWatch implements Watch {
  readonly #fd: number;
  readonly #path: Memory = allocate(PATH_BYTES, addressOf);
  readonly #statfs: Memory = allocate(128, addressOf);
  readonly #fsids = new Map<number, string>();

  /** @param fd from openWatch(). */
  constructor(fd: number) {
    this.#fd = fd;
  }

  add(dir: number, name: string, device: number): string | undefined {
    // An empty name is the descriptor itself, which fanotify_mark(2) takes as its own folder `.`.
    const path = this.#put(name === '' ? '.' : name);
    const handle = fan.fileHandle(dir, path);
    const fsid = this.#fsids.get(device) ?? this.#fsid(dir, name, device);
    if (handle === undefined || fsid === undefined) return undefined;
    return fan.watchDir(this.#fd, dir, this.#put(name === '' ? '.' : name)) < 0 ? undefined : fsid + handle;
  }

  remove(dir: number, name: string): void {
    fan.unwatchDir(this.#fd, dir, this.#put(name === '' ? '.' : name));
  }

  ignoreWrites(fd: number): boolean {
    return fan.ignoreWrites(this.#fd, fd) === 0;
  }

  heedWrites(fd: number): void {
    fan.heedWrites(this.#fd, fd);
  }

  #fsid(dir: number, name: string, device: number): string | undefined {
    const fd = openat(AT_FDCWD, this.#put(`/proc/self/fd/${dir}/${name}`), O_PATH_CLOEXEC, 0);
    if (fd < 0) return undefined;
    const result = fstatfs(fd, this.#statfs.address);
    close(fd);
    if (result < 0) return undefined;
    const fsid = this.#statfs.bytes.toString('latin1', FSID, FSID + 8);
    this.#fsids.set(device, fsid);
    return fsid;
  }

  #put(text: string): number {
    this.#path.bytes[this.#path.bytes.write(text, 0, 'latin1')] = 0;
    return this.#path.address;
  }
}
