/**
 * A list in order of last use, linked through its members: the oldest is at hand when a limit is reached, and using one
 * moves it without a search.
 */

/** What can be in a list; one list at a time. */
export interface Aged {
  older: Aged | undefined;
  newer: Aged | undefined;
}

export class AgeList<T extends Aged> {
  #oldest: T | undefined;
  #newest: T | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get oldest(): T | undefined {
    return this.#oldest;
  }

  /** Adds a member that is in no list, as the newest. */
  add(item: T): void {
    item.older = this.#newest;
    item.newer = undefined;
    if (this.#newest) this.#newest.newer = item;
    else this.#oldest = item;
    this.#newest = item;
    this.#size++;
  }

  /** Takes a member out. */
  remove(item: T): void {
    if (item.older) item.older.newer = item.newer;
    else this.#oldest = item.newer as T | undefined;
    if (item.newer) item.newer.older = item.older;
    else this.#newest = item.older as T | undefined;
    item.older = undefined;
    item.newer = undefined;
    this.#size--;
  }

  /** Makes a member the newest. */
  touch(item: T): void {
    if (item === this.#newest) return;
    this.remove(item);
    this.add(item);
  }
}
