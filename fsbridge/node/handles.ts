/**
 * Open files and directories, by the number that the kernel got in the open reply. Numbers are used again once
 * RELEASE came, as descriptors are.
 */

import type { DirStream } from './dir-stream.ts';
import type { Node } from './node.ts';

export class Handle {
  readonly id: number;
  readonly node: Node;
  readonly fd: number;
  /** Whether it was opened for writing. */
  readonly writable: boolean;
  /** The next open file of the same node. */
  next: Handle | undefined;
  /** For directories. */
  readonly stream: DirStream | undefined;

  constructor(id: number, node: Node, fd: number, writable: boolean, stream: DirStream | undefined) {
    this.id = id;
    this.node = node;
    this.fd = fd;
    this.writable = writable;
    this.stream = stream;
  }
}

export class HandleTable {
  readonly #slots: (Handle | undefined)[] = [];
  readonly #free: number[] = [];
  #size = 0;

  /** Open handles. */
  get size(): number {
    return this.#size;
  }

  get(id: number): Handle | undefined {
    return this.#slots[id];
  }

  open(node: Node, fd: number, writable: boolean, stream?: DirStream): Handle {
    const id = this.#free.pop() ?? this.#slots.length;
    const handle = new Handle(id, node, fd, writable, stream);
    this.#slots[id] = handle;
    this.#size++;
    // A directory's handle can't stand in for its node: it is found by its path descriptor.
    if (stream === undefined) {
      handle.next = node.handle;
      node.handle = handle;
    }
    return handle;
  }

  /** Takes the handle out; closing its descriptor is the caller's. */
  close(handle: Handle): void {
    this.#slots[handle.id] = undefined;
    this.#free.push(handle.id);
    this.#size--;
    const node = handle.node;
    if (node.handle === handle) {
      node.handle = handle.next;
      return;
    }
    for (let at = node.handle; at !== undefined; at = at.next) {
      if (at.next === handle) {
        at.next = handle.next;
        return;
      }
    }
  }

  *all(): Generator<Handle> {
    for (const handle of this.#slots) if (handle !== undefined) yield handle;
  }
}
