/**
 * The serving thread's part of telling a container about changes on the host: which folders to watch, what to do about
 * an event, and how to answer the watcher's requests, which repeat what is so already.
 *
 * Only folders that the kernel knows are watched, for nobody can have a watch below another; an idle mount therefore
 * costs nothing however busy the host is elsewhere. A change by this mount's own server is told by its thread and left
 * out by the watcher; another mount's, of the same folder, is a change like a host process's. Merged events say only that something
 * happened to a name, so what the folder looks like now decides what is told.
 */
import type { Memory } from '../memory.ts';
import type { Node } from '../node/node.ts';
import { BODY, type Server } from '../ops/server.ts';
import * as E from '../wire/errno.ts';
import * as O from '../wire/opcode.ts';
import type { Request } from '../wire/request.ts';
import * as S from '../wire/stat.ts';
import type { Action } from './actions.ts';
import type { HostEvent } from './events.ts';

/** Bits of HostEvent.mask (fanotify(7)). */
const MODIFY = 0x2;
const ATTRIB = 0x4;
const CREATE = 0x100;
const DELETE = 0x200;
const OVERFLOW = 0x4000;
const RENAME = 0x10000000;
const ONDIR = 0x40000000;

/** After lost events, this many folders are told of by ATTRIB, so that who watches them looks again. */
const RESCAN_MAX = 10_000;

/** Watches folders of the host. */
export interface Watch {
  /** The key by which events will name the folder, or undefined if its changes can't be watched. */
  add(dir: number, name: string, device: number): string | undefined;
  remove(dir: number, name: string): void;
  /** Leaves out writes to an open file, whoever makes them, until heedWrites(); whether it does. */
  ignoreWrites(fd: number): boolean;
  heedWrites(fd: number): void;
}

/** A name that the watcher is about to change as the host did. */
interface Expected {
  kind: 'appear' | 'vanish';
  /** Of what vanishes: the node, and what to say of it. */
  node: Node | undefined;
  dir: boolean;
}

export class Notifier {
  readonly #server: Server;
  readonly #watch: Watch;
  readonly #dirs = new Map<string, Node>();
  readonly #keys = new Map<Node, string>();
  readonly #expected = new Map<string, Expected>();
  /** Names that came and went within the events at hand. */
  readonly #unseen = new Set<string>();
  readonly #watcherTid: () => number;
  readonly #onTurn: () => void;

  /**
   * @param watcherTid the thread whose requests repeat changes of the host, 0 while it isn't known.
   * @param onTurn called when that thread has events, to plan what to do about them.
   */
  constructor(server: Server, watch: Watch, watcherTid: () => number, onTurn: () => void) {
    this.#server = server;
    this.#watch = watch;
    this.#watcherTid = watcherTid;
    this.#onTurn = onTurn;
  }

  /** Folders watched. */
  get size(): number {
    return this.#keys.size;
  }

  /** Whether changes in the folder are told. */
  watches(node: Node): boolean {
    return this.#keys.has(node);
  }

  /** The kernel gets to know a folder, which is at (dir, name). */
  adopt(node: Node, dir: number, name: string): void {
    if (node.type !== S.S_IFDIR || this.#keys.has(node)) return;
    const key = this.#watch.add(dir, name, node.device);
    if (key === undefined) {
      // What can't be watched may not be remembered for long, and a file may have a name anywhere.
      this.#server.unwatched();
      return;
    }
    this.#keys.set(node, key);
    this.#dirs.set(key, node);
  }

  /** The kernel forgot a node. */
  drop(node: Node): void {
    const key = this.#keys.get(node);
    if (key === undefined) return;
    this.#keys.delete(node);
    this.#dirs.delete(key);
    // Opens nothing: this runs in the middle of other operations. A mark that stays ends with the mount.
    const { parent } = node;
    if (node.pathFd >= 0) this.#watch.remove(node.pathFd, '');
    else if (parent !== undefined && parent.pathFd >= 0) this.#watch.remove(parent.pathFd, node.name);
  }

  /**
   * The kernel may be writing to the file past the server from now on (FUSE passthrough): such writes are the
   * container's own, of which it has its event and its kernel knows. Nothing tells them from the host's, so none is
   * heard until the last writer closed the file; its attributes aren't remembered for long meanwhile (Server.attrSec).
   */
  writing(node: Node, fd: number): void {
    if (!node.unheard) node.unheard = this.#watch.ignoreWrites(fd);
  }

  /** The last of those who wrote past the server closes its file. */
  wrote(node: Node, fd: number): void {
    if (node.unheard) this.#watch.heedWrites(fd);
    node.unheard = false;
  }

  /** Decides what to do about events. */
  plan(events: HostEvent[]): Action[] {
    this.#expected.clear();
    this.#unseen.clear();
    const actions: Action[] = [];
    const done = new Set<string>();
    for (const event of events) {
      if ((event.mask & OVERFLOW) !== 0) return this.#rescan();
      const dir = this.#dirs.get(event.dir);
      const toDir = event.toDir === undefined ? undefined : this.#dirs.get(event.toDir);
      if ((event.mask & RENAME) !== 0) this.#moved(event, dir, toDir, actions);
      else if (dir !== undefined && event.name !== '') {
        // One look at a name settles all that happened to it before.
        const once = `${event.dir}/${event.name}/${event.mask}`;
        if (done.has(once)) continue;
        done.add(once);
        if (event.name === '.') this.#changedItself(event, dir, actions);
        else this.#changed(event, dir, actions);
      }
    }
    return actions;
  }

  /**
   * Answers a request of the watcher's thread; undefined if it is another's, or to be handled like any other's. The
   * watcher resolves paths, so there are LOOKUPs of folders between.
   */
  answer(request: Request, reply: Memory): number | undefined {
    if (request.pid !== this.#watcherTid() || request.pid === 0) return undefined;
    switch (request.opcode) {
      case O.STATFS:
        this.#onTurn();
        return undefined;
      case O.LOOKUP: {
        const expected = this.#expected.get(key(request.nodeId, request.name(0)));
        if (expected?.kind === 'appear') return -E.ENOENT;
        return expected === undefined ? undefined : this.#ghost(expected, reply);
      }
      case O.GETATTR: {
        for (const expected of this.#expected.values())
          if (expected.kind === 'vanish' && expected.node?.id === request.nodeId) {
            this.#statGhost(expected);
            return this.#server.putAttr(expected.node, reply);
          }
        return undefined;
      }
      case O.SETATTR: {
        const node = this.#server.nodes.get(request.nodeId);
        if (node === undefined) return -E.ESTALE;
        const result = this.#server.statNode(node);
        return result < 0 ? result : this.#server.putAttr(node, reply);
      }
      case O.MKNOD:
        return this.#appear(request, request.name(16), reply);
      case O.MKDIR:
        return this.#appear(request, request.name(8), reply);
      case O.SYMLINK:
        return this.#appear(request, request.name(0), reply);
      case O.UNLINK:
      case O.RMDIR:
        return this.#vanish(request.nodeId, request.name(0));
      case O.RENAME: {
        const at = this.#server.layout.renameBytes;
        const from = request.name(at);
        const to = from === undefined ? undefined : request.name(request.after(at, from));
        this.#expected.delete(key(request.u64(0), to));
        return this.#vanish(request.nodeId, from);
      }
      case O.CREATE:
      case O.OPEN:
      case O.WRITE:
      case O.LINK:
      case O.SETXATTR:
      case O.REMOVEXATTR:
        return -E.EPERM;
      default:
        return undefined;
    }
  }

  /** A name was renamed: within what is known, out of it, or into it. */
  #moved(event: HostEvent, from: Node | undefined, to: Node | undefined, actions: Action[]): void {
    const { host, nodes } = this.#server;
    const dir = (event.mask & ONDIR) !== 0;
    const fromPath = from && this.#pathOf(from, event.name);
    const toPath = to && this.#pathOf(to, event.toName);
    const known = from?.children?.get(event.name);
    const arrived = to !== undefined && this.#stat(to, event.toName) === 0;
    if (fromPath !== undefined && toPath !== undefined && from !== undefined && to !== undefined && arrived) {
      const node = known ?? nodes.intern(host.stat, to, event.toName);
      const replaced = to.children?.get(event.toName);
      this.#expect(from, event.name, { kind: 'vanish', node, dir });
      if (replaced === undefined || replaced === node) {
        this.#expect(to, event.toName, { kind: 'appear', node: undefined, dir });
        actions.push({ do: 'dropEntry', parent: to.id, name: event.toName });
      }
      actions.push({ do: 'move', from: fromPath, to: toPath });
      if (replaced !== undefined && replaced !== node) nodes.unname(replaced, to, event.toName);
      if (known !== undefined) nodes.unname(known, from, event.name);
      nodes.name(node, to, event.toName);
      node.knownUntilMs = 0;
      actions.push({ do: 'dropInode', node: node.id });
      return;
    }
    if (from !== undefined && fromPath !== undefined) this.#gone(from, event.name, fromPath, dir, actions);
    if (to !== undefined && toPath !== undefined && arrived) this.#came(to, event.toName, toPath, actions);
  }

  /** Something happened to a name in a known folder. */
  #changed(event: HostEvent, dir: Node, actions: Action[]): void {
    const { name, mask } = event;
    const path = this.#pathOf(dir, name);
    if (path === undefined) return;
    const exists = this.#stat(dir, name) === 0;
    // Made and removed between two looks: to whoever watches, nothing happened.
    const at = key(dir.id, name);
    if (!exists && dir.children?.get(name) === undefined) {
      if ((mask & CREATE) !== 0) {
        this.#unseen.add(at);
        // It may have been listed all the same.
        actions.push({ do: 'dropInode', node: dir.id });
      }
      if (this.#unseen.has(at)) return;
    }
    if ((mask & DELETE) !== 0) this.#gone(dir, name, path, (mask & ONDIR) !== 0, actions);
    if (!exists) return;
    if ((mask & CREATE) !== 0) this.#came(dir, name, path, actions);
    const { host, nodes } = this.#server;
    if (this.#stat(dir, name) < 0) return;
    const known = dir.children?.get(name);
    const node = known !== undefined && nodes.matches(known, host.stat) ? known : undefined;
    const type = host.stat[S.MODE]! & S.S_IFMT;
    if ((mask & MODIFY) !== 0 && type === S.S_IFREG) {
      if (node !== undefined) actions.push({ do: 'dropInode', node: node.id });
      actions.push({ do: 'modify', path, size: S.uint64(host.stat, S.SIZE) });
    }
    if ((mask & ATTRIB) !== 0 && type !== S.S_IFLNK) {
      if (node !== undefined) actions.push({ do: 'dropInode', node: node.id });
      actions.push({ do: 'attrib', path, mode: host.stat[S.MODE]! & 0o7777 });
    }
  }

  /** A known folder's own attributes changed. */
  #changedItself(event: HostEvent, dir: Node, actions: Action[]): void {
    const path = this.#path(dir);
    if ((event.mask & ATTRIB) === 0 || path === undefined || this.#server.statNode(dir) < 0) return;
    actions.push({ do: 'dropInode', node: dir.id });
    actions.push({ do: 'attrib', path, mode: this.#server.host.stat[S.MODE]! & 0o7777 });
  }

  #came(dir: Node, name: string, path: string, actions: Action[]): void {
    const { host, nodes } = this.#server;
    if (this.#stat(dir, name) < 0) return;
    const known = dir.children?.get(name);
    if (known !== undefined && !nodes.matches(known, host.stat)) nodes.unname(known, dir, name);
    const type = host.stat[S.MODE]! & S.S_IFMT;
    this.#expect(dir, name, { kind: 'appear', node: undefined, dir: type === S.S_IFDIR });
    actions.push({ do: 'dropEntry', parent: dir.id, name });
    actions.push({ do: 'dropInode', node: dir.id });
    actions.push({ do: 'create', path, type });
  }

  #gone(dir: Node, name: string, path: string, isDir: boolean, actions: Action[]): void {
    const known = dir.children?.get(name);
    this.#expect(dir, name, { kind: 'vanish', node: known, dir: isDir });
    actions.push({ do: 'delete', path, dir: isDir });
    actions.push({ do: 'dropEntry', parent: dir.id, name });
    actions.push({ do: 'dropInode', node: dir.id });
  }

  /** Events were lost: nothing the kernel remembers is sure, and watchers of folders must look again. */
  #rescan(): Action[] {
    const actions: Action[] = [{ do: 'dropAll' }];
    for (const node of this.#server.nodes.all()) {
      node.knownUntilMs = 0;
      actions.push({ do: 'dropInode', node: node.id });
    }
    for (const node of this.#keys.keys()) {
      if (actions.length > RESCAN_MAX) break;
      const path = this.#path(node);
      if (path === undefined || this.#server.statNode(node) < 0) continue;
      actions.push({ do: 'attrib', path, mode: this.#server.host.stat[S.MODE]! & 0o7777 });
    }
    return actions;
  }

  #expect(dir: Node, name: string, expected: Expected): void {
    const at = key(dir.id, name);
    // Removed and made again: the first change is repeated first.
    const before = this.#expected.get(at);
    if (before?.kind === 'vanish' && expected.kind === 'appear') return;
    this.#expected.set(at, expected);
  }

  /** The entry of what isn't there any more, so that the watcher can remove it. */
  #ghost(expected: Expected, reply: Memory): number {
    const server = this.#server;
    this.#statGhost(expected);
    expected.node ??= server.nodes.internUnnamed(server.host.stat);
    server.putEntry(expected.node, reply, BODY);
    return server.entryBytes;
  }

  /** Fills the host's stat with what can still be said of what vanished. */
  #statGhost(expected: Expected): void {
    const server = this.#server;
    const { node } = expected;
    if (node !== undefined && server.statNode(node) === 0) return;
    const { stat } = server.host;
    stat.fill(0);
    stat[S.NLINK] = 1;
    stat[S.MODE] = node?.type ?? (expected.dir ? S.S_IFDIR : S.S_IFREG);
    stat[S.INO] = node?.inoLow ?? GHOST_INO;
    stat[S.INO + 1] = node?.inoHigh ?? GHOST_INO;
  }

  /** The watcher makes what is there: its entry. */
  #appear(request: Request, name: string | undefined, reply: Memory): number {
    const parent = this.#server.parentOf(request);
    if (name === undefined || parent === undefined || !this.#expected.delete(key(request.nodeId, name)))
      return -E.EPERM;
    const result = this.#server.host.statAt(this.#server.dir, name);
    return result < 0 ? result : this.#server.entry(parent, name, reply);
  }

  /** The watcher removes what is gone. */
  #vanish(parentId: number, name: string | undefined): number {
    if (name === undefined || !this.#expected.delete(key(parentId, name))) return -E.EPERM;
    const parent = this.#server.nodes.get(parentId);
    const node = parent?.children?.get(name);
    if (parent === undefined) return 0;
    // If it is there again, made anew, what comes next is its making.
    if (this.#stat(parent, name) === 0) {
      this.#expected.set(key(parentId, name), { kind: 'appear', node: undefined, dir: false });
      if (node !== undefined && this.#server.nodes.matches(node, this.#server.host.stat)) return 0;
    }
    if (node !== undefined) this.#server.nodes.unname(node, parent, name);
    return 0;
  }

  /** Fills the host's stat; 0 or a negative error. */
  #stat(dir: Node, name: string): number {
    const fd = this.#server.dirs.fd(dir);
    return fd < 0 ? fd : this.#server.host.statAt(fd, name);
  }

  #pathOf(dir: Node, name: string): string | undefined {
    const path = this.#path(dir);
    if (path === undefined) return undefined;
    return path === '' ? name : `${path}/${name}`;
  }

  /** The folder's path from the root, or undefined if it has none any more. */
  #path(node: Node): string | undefined {
    const names: string[] = [];
    for (let at = node; at !== this.#server.nodes.root; at = at.parent) {
      if (at.parent === undefined) return undefined;
      names.push(at.name);
    }
    return names.reverse().join('/');
  }
}

/** Inode number words of what vanished before anybody knew it. */
const GHOST_INO = 0xffffffff;

function key(parentId: number, name: string | undefined): string {
  return `${parentId}/${name}`;
}
