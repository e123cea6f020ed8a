/**
 * The memory into which a thread's TAPs read. All frames of a batch are read before the first is looked at, and what goes from
 * several of them to one socket is written with one call: between two system calls caches and address translations go cold,
 * so calls are made in a row and the frames worked on in a row.
 */
import { PIECES_MAX } from '#common/native/socket';
import { FRAME_BYTES_MAX } from '../link/link.ts';

/** Frames of a batch. Their memory should stay in a core's cache. */
export const BATCH_FRAMES = 8;
/** Slots begin at cache lines. */
const SLOT_BYTES = (FRAME_BYTES_MAX + 63) & ~63;

/** Somebody who keeps references into the batch until flush() is called. */
export interface Gatherer {
  flush(): void;
}

/** Slots for the frames of one batch. */
export class ReceiveBatch {
  readonly bytes: Uint8Array = new Uint8Array(new ArrayBuffer(BATCH_FRAMES * SLOT_BYTES));
  readonly #gatherers: (Gatherer | undefined)[] = new Array(BATCH_FRAMES).fill(undefined);
  #count = 0;

  /** Where frame `index` of a batch lies. */
  slot(index: number): number {
    return index * SLOT_BYTES;
  }

  /** Calls `gatherer` before any frame of the batch is overwritten. Each frame may bring one. */
  hold(gatherer: Gatherer): void {
    this.#gatherers[this.#count++] = gatherer;
  }

  /** Lets go of all references: the batch is over. */
  flush(): void {
    for (let i = 0; i < this.#count; i++) {
      this.#gatherers[i]!.flush();
      this.#gatherers[i] = undefined;
    }
    this.#count = 0;
  }
}

/** Each frame gives a socket one piece at most, so a batch fits one write. */
if (BATCH_FRAMES > PIECES_MAX) throw new Error('a batch has more frames than one write has pieces');

/** The batch of this thread. */
export const receiveBatch: ReceiveBatch = new ReceiveBatch();
