/**
 * A file that the kernel knows, by a number that we gave it.
 *
 * One node stands for one inode of the host under all its names, told from a later inode of the same number by its
 * birth time, so that no descriptor has to pin it. A node keeps every name it was met under, since each may vanish
 * first; the first is used. Descriptors are kept only for open files, and for some directories (dirs.ts).
 */
import type { Recorded } from '../policy/ownership.ts';
import type { Handle } from './handles.ts';

/** One name of a node. */
export interface Link {
  parent: Node;
  name: string;
}

export class Node {
  readonly id: number;
  /** S_IFMT bits. */
  readonly type: number;
  /** Identity on the host: device as one number, inode in two words, birth time. */
  readonly device: number;
  readonly inoLow: number;
  readonly inoHigh: number;
  readonly bornSec: number;
  readonly bornNs: number;

  /** References that the kernel holds: one for each entry reply, until FORGET. */
  lookups = 0;
  /** Until when, on the server's clock, the kernel has attributes of it, unless it dropped them by itself. */
  knownUntilMs = 0;
  /** The time of change of the attributes that the kernel was told last: seconds (low word) and nanoseconds. */
  toldSec = 0;
  toldNs = 0;
  /** False once another inode took its place in the table or the kernel forgot it. */
  alive = true;

  /** The name to use; parent is undefined for the root and for files without a name. */
  parent: Node | undefined;
  name = '';
  /** Further names, for files with hard links. */
  others: Link[] | undefined;
  /** The time of change at which the kernel was last allowed to keep this directory's names (ops/dir.ts). */
  listed: { sec: number; ns: number } | undefined;
  /** Known names below this directory. */
  children: Map<string, Node> | undefined;

  /** An open path descriptor, or -1; and its place in the list of recently used ones. */
  pathFd = -1;
  newer: Node | undefined;
  older: Node | undefined;

  /** The latest open file of this node; the others follow by Handle.next. */
  handle: Handle | undefined;
  /** Id by which the kernel reads and writes the file itself while it is open, or 0: all opens of an inode must agree. */
  backingId = 0;
  /** Whether the watcher leaves out writes to the file (Notifier.writing). */
  unheard = false;

  /** Made by the container and without file capabilities since, which the kernel asks for again and again. */
  uncapped = false;
  /** Who owns the file by a record of its own, if that was asked for (policy/ownership.ts). */
  owner: Recorded | undefined;

  constructor(
    id: number,
    type: number,
    device: number,
    inoLow: number,
    inoHigh: number,
    bornSec: number,
    bornNs: number,
  ) {
    this.id = id;
    this.type = type;
    this.device = device;
    this.inoLow = inoLow;
    this.inoHigh = inoHigh;
    this.bornSec = bornSec;
    this.bornNs = bornNs;
  }
}
