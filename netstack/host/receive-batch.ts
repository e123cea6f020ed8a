/**
 * The memory into which a thread's TAPs read. A frame stays in it until the ring has come round, so that what goes from
 * several frames to one socket can be written with one call: a call costs more than a copy of a few kilobytes, and the
 * kernel works the better the larger a write is.
 */
import { PIECES_MAX } from '#common/native/socket';
import { FRAME_BYTES_MAX } from '../link/link.ts';

/** The ring should stay in a core's cache. */
const SLOTS = 8;
/** Slots begin at cache lines. */
const SLOT_BYTES = (FRAME_BYTES_MAX + 63) & ~63;

/** Somebody who keeps references into the ring until flush() is called. */
export interface Gatherer {
  flush(): void;
}

/** A ring of frames. */
export class ReceiveRing {
  readonly bytes: Uint8Array = new Uint8Array(new ArrayBuffer(SLOTS * SLOT_BYTES));
  readonly #gatherers: Gatherer[] = [];
  #slot = 0;

  /** Where the next frame may be read to. */
  next(): number {
    if (this.#slot === SLOTS) {
      this.flush();
      this.#slot = 0;
    }
    return this.#slot++ * SLOT_BYTES;
  }

  /** Calls `gatherer` before any frame that has been read is overwritten. */
  hold(gatherer: Gatherer): void {
    this.#gatherers.push(gatherer);
  }

  /** Lets go of all references. */
  flush(): void {
    for (let i = 0; i < this.#gatherers.length; i++) this.#gatherers[i]!.flush();
    this.#gatherers.length = 0;
  }
}

/** Each frame gives a socket one piece at most, so a round fits one write. */
if (SLOTS > PIECES_MAX) throw new Error('the ring has more slots than one write has pieces');

/** The ring of this thread. */
export const receiveRing: ReceiveRing = new ReceiveRing();
