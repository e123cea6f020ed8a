/**
 * Path descriptors of directories. Operations need the descriptor of the directory that a name is in; opening one
 * costs more than most operations, and keeping one for every directory would exhaust the host (a known failure of
 * other bridges). So the most recently used ones stay open, and any other is opened again through its parents, one
 * component at a time and never through a symbolic link, and must prove to be the same inode.
 */
import type { HostFs } from '../backing/host-fs.ts';
import { ESTALE } from '../wire/errno.ts';
import { S_IFDIR } from '../wire/stat.ts';
import type { Node } from './node.ts';
import type { NodeTable } from './table.ts';

/** Descriptors kept for directories, per mount. */
export const OPEN_DIRS_MAX = 256;

export class Dirs {
  readonly #host: HostFs;
  readonly #nodes: () => NodeTable;
  #newest: Node | undefined;
  #oldest: Node | undefined;
  #size = 0;

  constructor(host: HostFs, nodes: () => NodeTable) {
    this.#host = host;
    this.#nodes = nodes;
  }

  /** Descriptors open. */
  get size(): number {
    return this.#size;
  }

  /**
   * A descriptor for the directory, good until the next call of this, or a negative error.
   * @param keep another directory whose descriptor must outlive this call.
   */
  fd(node: Node, keep?: Node): number {
    if (node.pathFd >= 0) {
      this.#touch(node);
      return node.pathFd;
    }
    const chain: Node[] = [];
    let at: Node | undefined = node;
    while (at !== undefined && at.pathFd < 0) {
      chain.push(at);
      at = at.parent;
    }
    if (at === undefined) return -ESTALE;
    let fd = at.pathFd;
    for (let i = chain.length - 1; i >= 0; i--) {
      fd = this.#open(fd, chain[i]!, keep);
      if (fd < 0) return fd;
    }
    return fd;
  }

  /** Closes the directory's descriptor, if it has one. */
  close(node: Node): void {
    if (node.pathFd < 0 || node === this.#nodes().root) return;
    this.#unlink(node);
    this.#host.close(node.pathFd);
    node.pathFd = -1;
  }

  closeAll(): void {
    while (this.#oldest !== undefined) this.close(this.#oldest);
  }

  #open(parentFd: number, node: Node, keep: Node | undefined): number {
    if (node.type !== S_IFDIR) return -ESTALE;
    const fd = this.#host.openPath(parentFd, node.name);
    if (fd < 0) return -ESTALE;
    if (this.#host.statAt(fd, '') < 0 || !this.#nodes().matches(node, this.#host.stat)) {
      this.#host.close(fd);
      return -ESTALE;
    }
    node.pathFd = fd;
    this.#push(node);
    if (this.#size > OPEN_DIRS_MAX) {
      const oldest = this.#oldest === keep ? this.#oldest?.newer : this.#oldest;
      if (oldest !== undefined) this.close(oldest);
    }
    return fd;
  }

  #touch(node: Node): void {
    if (node === this.#newest || node === this.#nodes().root) return;
    this.#unlink(node);
    this.#push(node);
  }

  #push(node: Node): void {
    node.older = this.#newest;
    node.newer = undefined;
    if (this.#newest !== undefined) this.#newest.newer = node;
    this.#newest = node;
    this.#oldest ??= node;
    this.#size++;
  }

  #unlink(node: Node): void {
    if (node.newer !== undefined) node.newer.older = node.older;
    else this.#newest = node.older;
    if (node.older !== undefined) node.older.newer = node.newer;
    else this.#oldest = node.newer;
    node.newer = undefined;
    node.older = undefined;
    this.#size--;
  }
}
