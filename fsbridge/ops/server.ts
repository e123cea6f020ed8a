/**
 * What all operations share: the tables of nodes and handles, the host, the policy, and the ways to find a file on the
 * host and to tell the kernel about it. Operations are functions of a server, a request and the reply's memory; they
 * put the body of their reply behind the header and return its length, or a negative error, or NO_REPLY.
 */
import type { Clock } from '#common/clock';
import type { HostFs } from '../backing/host-fs.ts';
import { allocate, type Memory } from '../memory.ts';
import { Dirs } from '../node/dirs.ts';
import { type Handle, HandleTable } from '../node/handles.ts';
import { Locks } from '../node/locks.ts';
import type { Node } from '../node/node.ts';
import { NodeTable } from '../node/table.ts';
import type { Notifier } from '../notify/notifier.ts';
import { IdMap } from '../policy/id-map.ts';
import { type Lifetimes, lifetimes, type Policy } from '../policy/options.ts';
import { Ownership } from '../policy/ownership.ts';
import * as E from '../wire/errno.ts';
import type { Layout } from '../wire/layout.ts';
import { OUT_HEADER_BYTES, type Request } from '../wire/request.ts';
import { CTIME, GID, MODE, NLINK, putUint64, S_IFDIR, S_IFMT, UID } from '../wire/stat.ts';

/** An operation's result when nothing is to be written: for FORGET, and for locks that wait. */
export const NO_REPLY = -100_000;

/** The first word of a reply's body. */
export const BODY: number = OUT_HEADER_BYTES >> 2;

/** Registers open files for the kernel to read and write by itself (FUSE passthrough). */
export interface Backing {
  /** A positive id, or a negative error. */
  open(fd: number): number;
  close(id: number): void;
}

/** Does calls that may take long beside the serving thread, and answers for them (aside/jobs.ts). */
export interface Aside {
  /** False if it can't take another. */
  put(call: number, unique: number, ...operands: number[]): boolean;
}

/** Room for a recorded owner. */
const OWNER_BYTES = 64;

/** Longest life of attributes that may change without our hearing of it: of files with several names, or being written. */
const DOUBTFUL_ATTR_SEC = 1;

/** Buffers kept for the next opendir. */
const SPARE_BUFFERS_MAX = 16;

/** An operation: the length of the reply's body, a negative error, or NO_REPLY. */
export type Operation = (server: Server, request: Request, reply: Memory) => number;

export interface ServerOptions {
  host: HostFs;
  layout: Layout;
  policy: Policy;
  clock: Clock;
  /** Where the channel can: only the kernel's own device, and with CAP_SYS_ADMIN. */
  backing?: Backing;
  /** Where there are threads for it; else the server does everything itself. */
  aside?: Aside;
  /** #common/native/libc's, where the host needs addresses. */
  addressOf: (view: Uint8Array) => number;
  /** The user that files made by the server belong to at first. */
  uid: number;
  gid: number;
}

export class Server {
  readonly host: HostFs;
  readonly layout: Layout;
  readonly policy: Policy;
  readonly clock: Clock;
  lifetimes: Lifetimes;
  readonly addressOf: (view: Uint8Array) => number;
  readonly uid: number;
  readonly gid: number;
  readonly nodes: NodeTable;
  readonly handles: HandleTable = new HandleTable();
  readonly dirs: Dirs;
  readonly locks: Locks;
  readonly uids: IdMap;
  readonly gids: IdMap;
  /** Where owners are recorded beside the files. */
  readonly ownership: Ownership | undefined;
  /** Who asks now. */
  callerUid = 0;
  callerGid = 0;
  /** Where changes on the host can be told. */
  notifier: Notifier | undefined;
  /** What the kernel agreed to in INIT, or undefined when it serves no data by itself. */
  backing: Backing | undefined;

  readonly aside: Aside | undefined;
  /** Devices of the host that can't tell whether a read would wait: those in memory, and some networks. */
  readonly untold: Set<number> = new Set();

  readonly #buffers: Memory[] = [];

  /** Where locate() found a node. */
  dir = -1;
  name = '';

  /** Answers to requests that waited, for the session to send. */
  readonly answers: { unique: number; result: number }[] = [];

  /** What the reply being built gave away, to be taken back if the kernel doesn't take it. */
  givenNode: Node | undefined;
  givenHandle: Handle | undefined;

  constructor(options: ServerOptions) {
    this.host = options.host;
    this.layout = options.layout;
    this.policy = options.policy;
    this.clock = options.clock;
    this.addressOf = options.addressOf;
    this.uid = options.uid;
    this.gid = options.gid;
    this.backing = options.policy.passthrough ? options.backing : undefined;
    this.aside = options.aside;
    this.lifetimes = lifetimes(options.policy.consistency, false);
    this.uids = new IdMap(options.policy.uidMap);
    this.gids = new IdMap(options.policy.gidMap);
    this.ownership =
      options.policy.ownership === 'caller'
        ? new Ownership(this, allocate(OWNER_BYTES, options.addressOf))
        : undefined;
    this.dirs = new Dirs(options.host, () => this.nodes);
    this.locks = new Locks(options.host, options.clock);
    options.host.statAt(options.host.root, '');
    this.nodes = new NodeTable(options.host.stat, (node) => this.#dropped(node));
    this.nodes.root.pathFd = options.host.root;
  }

  /**
   * Finds the node on the host, into `dir` and `name`; 0 or a negative error. What is there now may be another file.
   * @param keep a directory whose descriptor is in use and stays open.
   */
  locate(node: Node, keep?: Node): number {
    this.name = '';
    if (node.pathFd >= 0) {
      this.dir = node.pathFd;
      return 0;
    }
    if (node.handle !== undefined) {
      this.dir = node.handle.fd;
      return 0;
    }
    if (node.parent === undefined) return -E.ESTALE;
    const fd = this.dirs.fd(node.parent, keep);
    if (fd < 0) return fd;
    this.dir = fd;
    this.name = node.name;
    return 0;
  }

  /**
   * Fills the host's stat with the node's attributes, and leaves in `dir` and `name` a place where it was just seen.
   * Names under which the host has no such file any more are dropped.
   */
  statNode(node: Node): number {
    for (;;) {
      const found = this.locate(node);
      if (found < 0) return found;
      const result = this.host.statAt(this.dir, this.name);
      if (this.name === '') return result;
      if (result === 0 && this.nodes.matches(node, this.host.stat)) return 0;
      if (result < 0 && !vanished(result)) return result;
      this.nodes.unname(node, node.parent!, node.name);
    }
  }

  /** Applies a host call to the node, again under another of its names when the host removed the first. */
  onNode(node: Node, call: (dir: number, name: string) => number): number {
    const found = this.locate(node);
    if (found < 0) return found;
    const result = call(this.dir, this.name);
    if (this.name === '' || !vanished(result)) return result;
    const seen = this.statNode(node);
    return seen < 0 ? seen : call(this.dir, this.name);
  }

  /** Leaves a call that may take long to another thread, which replies; undefined if it is to be done here. */
  leave(request: Request, call: number, ...operands: number[]): number | undefined {
    return this.aside?.put(call, request.unique, ...operands) === true ? NO_REPLY : undefined;
  }

  /** The node of a request's directory and its descriptor in `dir`, or undefined with the error in `dir`. */
  parentOf(request: Request): Node | undefined {
    const parent = this.nodes.get(request.nodeId);
    if (parent === undefined) {
      this.dir = -E.ESTALE;
      return undefined;
    }
    if (parent.type !== S_IFDIR) {
      this.dir = -E.ENOTDIR;
      return undefined;
    }
    this.dir = this.dirs.fd(parent);
    return this.dir < 0 ? undefined : parent;
  }

  /** Bytes of struct fuse_entry_out. */
  get entryBytes(): number {
    return 40 + this.layout.attrBytes;
  }

  /** Writes struct fuse_entry_out at word `at` for the node with the attributes in the host's stat, and counts the reference. */
  putEntry(node: Node, reply: Memory, at: number): void {
    node.lookups++;
    this.givenNode = node;
    this.presentOwner(node);
    const words = reply.words;
    putUint64(words, at, node.id);
    words[at + 2] = 0;
    words[at + 3] = 0;
    words[at + 4] = this.lifetimes.entrySec;
    words[at + 5] = 0;
    words[at + 6] = this.attrSec(node);
    words[at + 7] = 0;
    words[at + 8] = 0;
    words[at + 9] = 0;
    this.layout.encodeAttr(this.host.stat, words, at + 10);
  }

  /** Puts the owner that the caller is to see into the host's stat. */
  presentOwner(node: Node): void {
    if (this.ownership === undefined) {
      const { stat } = this.host;
      stat[UID] = this.uids.toInside(stat[UID]!);
      stat[GID] = this.gids.toInside(stat[GID]!);
      return;
    }
    const { dir, name } = this;
    // Finding the node may open folders above it, and so look at them.
    const stat = this.host.stat.slice();
    const found = this.locate(node);
    this.host.stat.set(stat);
    if (found === 0) this.ownership.present(node, this.dir, this.name, this.callerUid, this.callerGid);
    this.dir = dir;
    this.name = name;
  }

  /** Whether the kernel may be writing to the file past the server (FUSE passthrough). */
  writesPast(node: Node): boolean {
    if (node.backingId === 0) return false;
    for (let at = node.handle; at !== undefined; at = at.next) if (at.writable) return true;
    return false;
  }

  /**
   * How long the attributes in the host's stat, which the kernel is about to get, are good: a file may be changed by a
   * name in a folder that isn't watched.
   */
  attrSec(node: Node): number {
    const { stat } = this.host;
    let seconds = this.lifetimes.attrSec;
    if (this.ownership?.fixed(node) === false) seconds = 0;
    const linked = stat[NLINK]! > 1 && (stat[MODE]! & S_IFMT) !== S_IFDIR;
    if (linked || this.writesPast(node)) seconds = Math.min(seconds, DOUBTFUL_ATTR_SEC);
    node.toldSec = stat[CTIME]!;
    node.toldNs = stat[CTIME + 2]!;
    node.knownUntilMs = seconds === 0 ? 0 : this.clock.now() + seconds * 1000;
    return seconds;
  }

  /** Writes struct fuse_attr_out at the body from the host's stat; its bytes. */
  putAttr(node: Node, reply: Memory): number {
    this.presentOwner(node);
    const words = reply.words;
    words[BODY] = this.attrSec(node);
    words[BODY + 1] = 0;
    words[BODY + 2] = 0;
    words[BODY + 3] = 0;
    this.layout.encodeAttr(this.host.stat, words, BODY + 4);
    return 16 + this.layout.attrBytes;
  }

  /** Replies with the entry of what the host's stat tells of, called `name` in `parent`, which `dir` is of. */
  entry(parent: Node, name: string, reply: Memory): number {
    const node = this.nodes.intern(this.host.stat, parent, name);
    this.putEntry(node, reply, BODY);
    this.notifier?.adopt(node, this.dir, name);
    return this.entryBytes;
  }

  /** Closes the handle, its descriptor and its locks, and lets the node go if nothing else holds it. */
  closeHandle(handle: Handle): void {
    const { node } = handle;
    this.handles.close(handle);
    if (handle.writable) node.knownUntilMs = 0;
    if (node.unheard && !this.writesPast(node)) this.notifier?.wrote(node, handle.fd);
    this.host.close(handle.fd);
    if (node.backingId > 0 && node.handle === undefined) {
      this.backing?.close(node.backingId);
      node.backingId = 0;
    }
    this.nodes.release(node);
  }

  /** A buffer for a directory's records that was used before, if there is one. */
  takeBuffer(): Memory | undefined {
    return this.#buffers.pop();
  }

  giveBuffer(buffer: Memory): void {
    if (this.#buffers.length < SPARE_BUFFERS_MAX) this.#buffers.push(buffer);
  }

  /** The kernel didn't take the last reply: takes back what it gave. */
  takeBack(): void {
    const handle = this.givenHandle;
    const node = this.givenNode;
    this.givenHandle = undefined;
    this.givenNode = undefined;
    if (handle !== undefined) this.closeHandle(handle);
    if (node !== undefined) this.nodes.forget(node, 1);
  }

  /** Changes on the host will be told from now on. */
  watched(notifier: Notifier): void {
    this.notifier = notifier;
    this.lifetimes = lifetimes(this.policy.consistency, true);
    notifier.adopt(this.nodes.root, this.host.root, '');
  }

  /** Some changes on the host aren't told: nothing may be remembered for long. */
  unwatched(): void {
    this.lifetimes = lifetimes(this.policy.consistency, false);
  }

  /** The kernel forgot a node: frees what the server has for it. */
  #dropped(node: Node): void {
    if (node.type !== S_IFDIR) return;
    this.notifier?.drop(node);
    this.dirs.close(node);
  }

  /** Closes everything. */
  close(): void {
    this.locks.close();
    for (const handle of this.handles.all()) this.closeHandle(handle);
    this.dirs.closeAll();
  }
}

/** Whether an error says that a name doesn't lead to the file any more. */
function vanished(result: number): boolean {
  return result === -E.ENOENT || result === -E.ENOTDIR || result === -E.ELOOP || result === -E.ESTALE;
}
