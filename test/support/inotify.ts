/** inotify(7) as a program in a container sees it: which events came, in order. */
import { readSync } from 'node:fs';
import { addressOf, cFunction } from '#common/native/libc';

const c = {
  init: cFunction('inotify_init1', 'int', ['int']),
  add: cFunction('inotify_add_watch', 'int', ['int', 'int64', 'uint32']),
  close: cFunction('close', 'int', ['int']),
};

const NAMES: [number, string][] = [
  [0x2, 'MODIFY'],
  [0x4, 'ATTRIB'],
  [0x40, 'MOVED_FROM'],
  [0x80, 'MOVED_TO'],
  [0x100, 'CREATE'],
  [0x200, 'DELETE'],
  [0x400, 'DELETE_SELF'],
  [0x800, 'MOVE_SELF'],
  [0x4000, 'OVERFLOW'],
];
const MASK = NAMES.reduce((mask, [bit]) => mask | bit, 0);
const ISDIR = 0x40000000;
const NONBLOCK_CLOEXEC = 0o2004000;

export interface InotifyEvent {
  /** Such as `CREATE` or `DELETE,ISDIR`. */
  what: string;
  /** The watch's label and, for a folder, the name in it: `label/name`. */
  where: string;
  cookie: number;
}

export class Inotify {
  readonly #fd: number = c.init(NONBLOCK_CLOEXEC);
  readonly #labels = new Map<number, string>();
  readonly events: InotifyEvent[] = [];

  watch(path: string, label: string): void {
    const bytes = Buffer.from(`${path}\0`);
    const watch: number = c.add(this.#fd, addressOf(bytes), MASK);
    if (watch < 0) throw new Error(`can't watch ${path}`);
    this.#labels.set(watch, label);
  }

  /** Takes what has come; all events so far. */
  poll(): InotifyEvent[] {
    const buffer = Buffer.alloc(65536);
    for (;;) {
      let count: number;
      try {
        count = readSync(this.#fd, buffer);
      } catch {
        return this.events;
      }
      for (let at = 0; at < count; ) {
        const mask = buffer.readUInt32LE(at + 4);
        const length = buffer.readUInt32LE(at + 12);
        const name = buffer.toString('latin1', at + 16, at + 16 + length).replace(/\0+$/, '');
        const label = this.#labels.get(buffer.readInt32LE(at)) ?? '?';
        const what = NAMES.filter(([bit]) => (mask & bit) !== 0).map(([, text]) => text);
        if (what.length > 0)
          this.events.push({
            what: what.join('|') + ((mask & ISDIR) !== 0 ? ',ISDIR' : ''),
            where: name === '' ? label : `${label}/${name}`,
            cookie: buffer.readUInt32LE(at + 8),
          });
        at += 16 + length;
      }
    }
  }

  /** The events so far as `WHAT where`, and forgets them. */
  take(): string[] {
    return this.poll()
      .splice(0)
      .map(({ what, where }) => `${what} ${where}`);
  }

  close(): void {
    c.close(this.#fd);
  }
}
