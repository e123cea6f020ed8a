/** Things that the main thread knows by number, since objects cannot cross between threads. */
import type { Closable } from './flow/host.ts';

/** Numbered things of one kind. */
export class Handles<T extends Closable> {
  readonly #items = new Map<number, T>();
  #nextId = 1;

  get size(): number {
    return this.#items.size;
  }

  add(item: T): number {
    const id = this.#nextId++;
    this.#items.set(id, item);
    return id;
  }

  get(id: number): T | undefined {
    return this.#items.get(id);
  }

  values(): Iterable<T> {
    return this.#items.values();
  }

  /** Closes and forgets; closing what is gone already does nothing. */
  close(id: number): undefined {
    const item = this.#items.get(id);
    this.#items.delete(id);
    item?.close();
  }

  closeAll(): void {
    for (const id of [...this.#items.keys()]) this.close(id);
  }
}
