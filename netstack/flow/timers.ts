/**
 * When which flow has something to do. A binary heap by time, in which a flow that is postponed stays where it is: it is looked at
 * when its old time comes, and only then moved. Retransmission timers are postponed by every ACK and idle timers by every
 * packet, so this saves nearly all of the heap's work.
 */

/** What a heap can hold. */
export interface Timed {
  /** When it wants to be looked at; changed only by {@link Timers.schedule}. Infinity: never. */
  dueAt: number;
  /** The heap's own: place in it, -1 when it is not there, and the time for which it is there. */
  heapIndex: number;
  heapAt: number;
}

export class Timers<T extends Timed> {
  readonly #heap: T[] = [];

  get size(): number {
    return this.#heap.length;
  }

  /** Looks at `item` at `dueAt` or soon after; Infinity: no more. */
  schedule(item: T, dueAt: number): void {
    item.dueAt = dueAt;
    if (item.heapIndex < 0) {
      if (dueAt === Number.POSITIVE_INFINITY) return;
      item.heapAt = dueAt;
      item.heapIndex = this.#heap.length;
      this.#heap.push(item);
      this.#up(item.heapIndex);
    } else if (dueAt < item.heapAt) {
      item.heapAt = dueAt;
      this.#up(item.heapIndex);
    }
  }

  /** Forgets `item`. */
  cancel(item: T): void {
    const index = item.heapIndex;
    item.dueAt = Number.POSITIVE_INFINITY;
    if (index < 0) return;
    item.heapIndex = -1;
    const last = this.#heap.pop()!;
    if (last === item) return;
    this.#place(last, index);
    this.#up(index);
    this.#down(last.heapIndex);
  }

  /** Time of the earliest look, which may be earlier than anything is due; Infinity when there is none. */
  nextAt(): number {
    return this.#heap.length > 0 ? this.#heap[0]!.heapAt : Number.POSITIVE_INFINITY;
  }

  /** Takes out and returns an item that is due, or undefined when there is none more. */
  pop(now: number): T | undefined {
    while (this.#heap.length > 0) {
      const first = this.#heap[0]!;
      if (first.heapAt > now) return undefined;
      if (first.dueAt <= now) {
        this.cancel(first);
        return first;
      }
      if (first.dueAt === Number.POSITIVE_INFINITY) this.cancel(first);
      else {
        first.heapAt = first.dueAt;
        this.#down(0);
      }
    }
    return undefined;
  }

  #place(item: T, index: number): void {
    this.#heap[index] = item;
    item.heapIndex = index;
  }

  #up(from: number): void {
    const item = this.#heap[from]!;
    let index = from;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (this.#heap[parent]!.heapAt <= item.heapAt) break;
      this.#place(this.#heap[parent]!, index);
      index = parent;
    }
    this.#place(item, index);
  }

  #down(from: number): void {
    const item = this.#heap[from]!;
    const size = this.#heap.length;
    let index = from;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= size) break;
      if (child + 1 < size && this.#heap[child + 1]!.heapAt < this.#heap[child]!.heapAt) child++;
      if (this.#heap[child]!.heapAt >= item.heapAt) break;
      this.#place(this.#heap[child]!, index);
      index = child;
    }
    this.#place(item, index);
  }
}
