/**
 * Telling of the host's changes where the protocol has no notifications and a request doesn't say who asks: FUSE-T. What
 * the system remembers of a file is renewed by any change of it through the mount, and whoever watches it there hears of
 * that; so the mode that a changed file has is set once more, through the mount.
 *
 * Only what the mount's users know is looked at, and only if its time of change is another than the one they were told:
 * what they do themselves, and the setting of the mode, are answered with the time that the file then has, and end there.
 */
import { dirname, join } from 'node:path';
import type { Node } from '../node/node.ts';
import type { Server } from '../ops/server.ts';
import * as S from '../wire/stat.ts';

/** Sets the mode of a path below the mount's root, through the mount. */
export type Refresh = (path: string, mode: number) => Promise<void>;

export class Refresher {
  readonly #server: Server;
  readonly #refresh: Refresh;
  readonly #waiting = new Map<string, number>();
  #running = false;

  /** @param refresh one at a time is called; what it throws is ignored, as on a mount that is read-only. */
  constructor(server: Server, refresh: Refresh) {
    this.#server = server;
    this.#refresh = refresh;
  }

  /** Something happened to a path below the root, or to its name. */
  changed(path: string): void {
    this.#look(path);
    if (path !== '.') this.#look(dirname(path));
    void this.#run();
  }

  #look(path: string): void {
    const node = this.#find(path);
    if (node === undefined || node.type === S.S_IFLNK || this.#server.statNode(node) < 0) return;
    const { stat } = this.#server.host;
    if (stat[S.CTIME] === node.toldSec && stat[S.CTIME + 2] === node.toldNs) return;
    this.#waiting.set(path, stat[S.MODE]! & 0o7777);
  }

  #find(path: string): Node | undefined {
    const names = join(path)
      .split('/')
      .filter((name) => name !== '.' && name !== '');
    let node: Node | undefined = this.#server.nodes.root;
    for (const name of names) node = node?.children?.get(Buffer.from(name).toString('latin1'));
    return node;
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    for (const [path, mode] of this.#waiting) {
      this.#waiting.delete(path);
      await this.#refresh(path, mode).catch(() => {});
    }
    this.#running = false;
  }
}
