/**
 * How the watching thread and the serving thread talk: the server blocks in the kernel and has no event loop. The
 * watcher puts events into shared memory and asks the mount for its free space; the server, coming to that request as
 * to any other, replaces the events by actions before it answers.
 */
import type { Action } from './actions.ts';

/** Bytes of events in one exchange; some 1,000 events. */
export const EVENT_BYTES_MAX: number = 64 << 10;
/** Room for the actions of so many events, each with names of up to 255 bytes and paths of up to 4096. */
const TEXT_BYTES_MAX = 8 << 20;

const EVENTS_LENGTH = 0;
const ACTIONS_LENGTH = 1;
const TID = 2;
const SERVER_TID = 3;
const HEAD_BYTES = 16;

export class Exchange {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #bytes: Buffer;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(HEAD_BYTES + TEXT_BYTES_MAX)) {
    this.shared = shared;
    this.#words = new Int32Array(shared, 0, HEAD_BYTES / 4);
    this.#bytes = Buffer.from(shared, HEAD_BYTES);
  }

  /** The watcher's thread, by which the server knows its requests; 0 before it runs. */
  get watcherTid(): number {
    return Atomics.load(this.#words, TID);
  }

  set watcherTid(tid: number) {
    Atomics.store(this.#words, TID, tid);
  }

  /** The server's thread, whose changes are its own; 0 before it runs. */
  get serverTid(): number {
    return Atomics.load(this.#words, SERVER_TID);
  }

  set serverTid(tid: number) {
    Atomics.store(this.#words, SERVER_TID, tid);
  }

  /** Watcher: gives events to the server. */
  putEvents(events: Buffer): void {
    events.copy(this.#bytes);
    Atomics.store(this.#words, ACTIONS_LENGTH, 0);
    Atomics.store(this.#words, EVENTS_LENGTH, events.length);
  }

  /** Watcher: what the server made of them. */
  takeActions(): Action[] {
    const length = Atomics.load(this.#words, ACTIONS_LENGTH);
    return length === 0 ? [] : (JSON.parse(this.#bytes.toString('latin1', 0, length)) as Action[]);
  }

  /** Server: the events, once; undefined if there are none. */
  takeEvents(): Buffer | undefined {
    const length = Atomics.exchange(this.#words, EVENTS_LENGTH, 0);
    return length === 0 ? undefined : Buffer.from(this.#bytes.subarray(0, length));
  }

  /** Server: answers events. */
  putActions(actions: Action[]): void {
    let text = JSON.stringify(actions);
    if (text.length > TEXT_BYTES_MAX) text = JSON.stringify([{ do: 'dropAll' }] satisfies Action[]);
    Atomics.store(this.#words, ACTIONS_LENGTH, this.#bytes.write(text, 'latin1'));
  }
}
