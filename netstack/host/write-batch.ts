/**
 * Small frames on their way to a thread's TAPs. They are copied aside and written together when the turn of the loop ends: a write
 * wakes the program that waits for the frame, and that program, once awake, finds the frames behind it there already instead of
 * falling asleep before each of them.
 */
import { CALLS_MAX, type Calls, singleCalls } from '#common/native/calls';
import { addressIn } from '#common/native/memory';
import { calls } from './calls.ts';

/** Frames of at most this many bytes are gathered; for others the copy would cost more than it saves. */
export const GATHERED_BYTES_MAX = 2048;
/** Up to so many bytes a loop is faster than making a view for set(): headers, not whole frames. */
const LOOP_BYTES_MAX = 128;
const FRAMES_MAX: number = CALLS_MAX;
const BATCH_BYTES: number = 64 * 1024;

/** Frames in the order in which they were sent. */
export class WriteBatch {
  readonly #bytes: Uint8Array = new Uint8Array(new ArrayBuffer(BATCH_BYTES));
  /** Descriptor and end of each frame. */
  readonly #fds = new Int32Array(FRAMES_MAX);
  readonly #ends = new Int32Array(FRAMES_MAX);
  readonly #calls: Calls;
  #count = 0;
  #end = 0;

  constructor(together: Calls = calls) {
    this.#calls = together;
  }

  /** Takes a frame of up to {@link GATHERED_BYTES_MAX} bytes, in two pieces as links get it. */
  add(
    fd: number,
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): void {
    if (this.#count === FRAMES_MAX || this.#end + headLen + bodyLen > BATCH_BYTES) this.flush();
    const bytes = this.#bytes;
    const at = this.#end;
    if (headLen > LOOP_BYTES_MAX) bytes.set(head.subarray(headOff, headOff + headLen), at);
    else for (let i = 0; i < headLen; i++) bytes[at + i] = head[headOff + i]!;
    if (body) bytes.set(body.subarray(bodyOff, bodyOff + bodyLen), at + headLen);
    this.#end = at + headLen + bodyLen;
    this.#fds[this.#count] = fd;
    this.#ends[this.#count++] = this.#end;
  }

  /** Writes all of them. What a TAP does not take is lost, as on any wire. */
  flush(): void {
    if (this.#count === 0) return;
    const via = this.#count === 1 ? singleCalls : this.#calls;
    const start = addressIn(this.#bytes, 0);
    let at = 0;
    for (let i = 0; i < this.#count; i++) {
      const end = this.#ends[i]!;
      via.write(this.#fds[i]!, start + at, end - at);
      at = end;
    }
    via.run();
    this.#count = 0;
    this.#end = 0;
  }
}

/** The batch of this thread. */
export const writeBatch: WriteBatch = new WriteBatch();
