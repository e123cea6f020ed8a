/**
 * The nodes that the kernel knows, by our number and by the host's identity.
 *
 * Life of a node: every entry reply (lookup, create, mkdir, readdirplus ...) adds a reference, FORGET takes some away.
 * A node without references lives on while a file of it is open or while a node below it lives, since those find
 * their place through it. Numbers are never used again (at a million new nodes a second they last 285 years), and so
 * the generation that the protocol has for reused numbers is always 0.
 */
import { assert } from '#common/errors';
import * as S from '../wire/stat.ts';
import { Node } from './node.ts';

/** The number of the root, fixed by the protocol. */
export const ROOT_ID = 1;

/** An inode number is a key by itself as long as a Number holds it exactly. */
const HIGH_WORD_LIMIT = 1 << 21;

export class NodeTable {
  readonly root: Node;
  #nextId = ROOT_ID + 1;
  readonly #byId = new Map<number, Node>();
  /** For each device of the host below the root, the live node of each inode. */
  readonly #byDevice = new Map<number, Map<number | string, Node>>();
  /** Called with a node that is dropped, to free what it holds. */
  readonly #onDrop: (node: Node) => void;

  /** @param stat the root's. */
  constructor(stat: S.Stat, onDrop: (node: Node) => void) {
    this.#onDrop = onDrop;
    this.root = this.#make(ROOT_ID, stat);
    this.root.lookups = 1;
  }

  /** Nodes alive, for statistics. */
  get size(): number {
    return this.#byId.size;
  }

  all(): IterableIterator<Node> {
    return this.#byId.values();
  }

  get(id: number): Node | undefined {
    return this.#byId.get(id);
  }

  /** Where the node is below the root, by its first name; `?` for one without a name or that isn't known. */
  pathOf(id: number): string {
    let path = '';
    let node = this.get(id);
    while (node !== undefined && node !== this.root) {
      path = `/${node.name}${path}`;
      node = node.parent;
    }
    if (node === undefined) return '?';
    return path === '' ? '/' : path;
  }

  /** Whether `stat` is of the inode that `node` stands for. */
  matches(node: Node, stat: S.Stat): boolean {
    return (
      node.inoLow === stat[S.INO] &&
      node.inoHigh === stat[S.INO + 1] &&
      node.bornNs === stat[S.BTIME + 2] &&
      node.bornSec === stat[S.BTIME] &&
      node.type === (stat[S.MODE]! & S.S_IFMT) &&
      node.device === deviceOf(stat)
    );
  }

  /** The node of the inode that `stat` tells of, which is called `name` in `parent`. It gets no reference yet. */
  intern(stat: S.Stat, parent: Node, name: string): Node {
    const known = parent.children?.get(name);
    if (known !== undefined) {
      if (known.alive && this.matches(known, stat)) return known;
      this.unname(known, parent, name);
    }
    const node = this.internUnnamed(stat);
    this.#addName(node, parent, name);
    return node;
  }

  /** The same for a file whose name isn't known or that has none. */
  internUnnamed(stat: S.Stat): Node {
    const inodes = this.#inodes(deviceOf(stat));
    const key = inodeKey(stat[S.INO]!, stat[S.INO + 1]!);
    const known = inodes.get(key);
    if (known !== undefined) {
      if (this.matches(known, stat)) return known;
      // The host reused the number: the old node stays for those who hold it, under its own number.
      known.alive = false;
      inodes.delete(key);
    }
    return this.#make(this.#nextId++, stat);
  }

  /** `node` got the name `name` in `parent`, and whatever had it lost it. */
  name(node: Node, parent: Node, name: string): void {
    const known = parent.children?.get(name);
    if (known === node) return;
    if (known !== undefined) this.unname(known, parent, name);
    this.#addName(node, parent, name);
  }

  /** `node` isn't called `name` in `parent` any more. */
  unname(node: Node, parent: Node, name: string): void {
    if (parent.children?.get(name) === node) parent.children.delete(name);
    if (node.parent === parent && node.name === name) {
      const other = node.others?.pop();
      if (node.others?.length === 0) node.others = undefined;
      node.parent = other?.parent;
      node.name = other?.name ?? '';
    } else if (node.others !== undefined) {
      node.others = node.others.filter((link) => link.parent !== parent || link.name !== name);
      if (node.others.length === 0) node.others = undefined;
    }
    this.release(parent);
  }

  /** The kernel gave `count` references back. */
  forget(node: Node, count: number): void {
    node.lookups = Math.max(0, node.lookups - count);
    this.release(node);
  }

  /** Drops `node`, and then those above it, if nothing needs them any more. */
  release(node: Node): void {
    let next: Node | undefined = node;
    while (next !== undefined) {
      const candidate: Node = next;
      next = undefined;
      if (candidate.lookups > 0 || candidate.handle !== undefined || candidate === this.root) return;
      if (candidate.children !== undefined && candidate.children.size > 0) return;
      if (this.#byId.get(candidate.id) !== candidate) return;
      next = this.#drop(candidate);
    }
  }

  /** Takes a node out; its parent, for which the same may now be due. */
  #drop(node: Node): Node | undefined {
    this.#byId.delete(node.id);
    const inodes = this.#inodes(node.device);
    const key = inodeKey(node.inoLow, node.inoHigh);
    if (inodes.get(key) === node) inodes.delete(key);
    node.alive = false;
    this.#onDrop(node);
    const parent = node.parent;
    if (parent !== undefined && parent.children?.get(node.name) === node) parent.children.delete(node.name);
    node.parent = undefined;
    for (const link of node.others ?? []) {
      if (link.parent.children?.get(link.name) === node) link.parent.children.delete(link.name);
      if (link.parent !== parent) this.release(link.parent);
    }
    node.others = undefined;
    return parent;
  }

  #addName(node: Node, parent: Node, name: string): void {
    assert(node !== parent, 'a directory is not below itself');
    parent.children ??= new Map();
    parent.children.set(name, node);
    if (node.parent === undefined) {
      node.parent = parent;
      node.name = name;
    } else if (node.type === S.S_IFDIR) {
      // A directory has one name: the host moved it.
      if (node.parent.children?.get(node.name) === node) node.parent.children.delete(node.name);
      const before = node.parent;
      node.parent = parent;
      node.name = name;
      this.release(before);
    } else {
      node.others ??= [];
      node.others.push({ parent, name });
    }
  }

  #inodes(device: number): Map<number | string, Node> {
    let inodes = this.#byDevice.get(device);
    if (inodes === undefined) {
      inodes = new Map();
      this.#byDevice.set(device, inodes);
    }
    return inodes;
  }

  #make(id: number, stat: S.Stat): Node {
    const node = new Node(
      id,
      stat[S.MODE]! & S.S_IFMT,
      deviceOf(stat),
      stat[S.INO]!,
      stat[S.INO + 1]!,
      stat[S.BTIME]!,
      stat[S.BTIME + 2]!,
    );
    this.#byId.set(id, node);
    this.#inodes(node.device).set(inodeKey(node.inoLow, node.inoHigh), node);
    return node;
  }
}

/** The host's device as one number: majors have 12 bits, minors 20. */
function deviceOf(stat: S.Stat): number {
  return stat[S.DEV_MAJOR]! * 0x10_0000 + stat[S.DEV_MINOR]!;
}

function inodeKey(low: number, high: number): number | string {
  return high < HIGH_WORD_LIMIT ? high * 0x1_0000_0000 + low : `${high}:${low}`;
}
