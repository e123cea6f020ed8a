/**
 * A bad wire, to see how guests and services bear it: frames are lost, delayed, overtaken, doubled and damaged, by
 * chance but repeatably from a seed. It stands between a link and the switch and works both ways.
 *
 * Frames in waiting are copied, and their number is bounded like any queue's.
 */
import type { Rng } from '#common/rng';
import { uniform } from '#common/rng';
import { type FrameSink, type Link, VNET_HDR_LEN } from './link.ts';

/** Frames in waiting per direction; more are lost. */
const WAITING_MAX = 4096;
/** How long a frame that is to be overtaken is held back. */
const OVERTAKEN_MS = 5;
/** Longest delay or jitter: TCP has given up long before. */
const DELAY_MS_MAX = 60_000;
const SEED_MAX = 2 ** 32 - 1;

/** What goes wrong. Chances are from 0 to 1. */
export interface FaultOptions {
  /** Chance that a frame is lost. */
  drop?: number;
  /** Every frame comes this much later. */
  delayMs?: number;
  /** And by chance up to this much more, in order. */
  jitterMs?: number;
  /** Chance that a frame is overtaken by those after it. */
  reorder?: number;
  /** Chance that a frame comes twice. */
  duplicate?: number;
  /** Chance that one bit of a frame is flipped. */
  corrupt?: number;
  /** From 0 to 2^32 - 1: the same traffic meets the same faults. Default: they differ from run to run. */
  seed?: number;
}

/** What is wrong with faults that are wished for, or undefined. */
export function checkFaults(options: FaultOptions): string | undefined {
  for (const key of ['drop', 'reorder', 'duplicate', 'corrupt'] as const)
    if (!((options[key] ?? 0) >= 0 && (options[key] ?? 0) <= 1))
      return `The chance "${key}" is ${options[key]}, not from 0 to 1.`;
  for (const key of ['delayMs', 'jitterMs'] as const)
    if (!((options[key] ?? 0) >= 0 && (options[key] ?? 0) <= DELAY_MS_MAX))
      return `"${key}" is ${options[key]}, not from 0 to ${DELAY_MS_MAX} milliseconds.`;
  const { seed = 0 } = options;
  return Number.isInteger(seed) && seed >= 0 && seed <= SEED_MAX
    ? undefined
    : `The seed is ${seed}, no whole number from 0 to ${SEED_MAX}.`;
}

interface Waiting {
  readonly dueMs: number;
  readonly bytes: Uint8Array;
}

/** One direction of the wire. */
class Lane {
  readonly #options: FaultOptions;
  readonly #rng: Rng;
  readonly #deliver: (frame: Uint8Array) => boolean;
  /** In order of time. */
  readonly #waiting: Waiting[] = [];
  #lastDueMs = 0;

  constructor(options: FaultOptions, rng: Rng, deliver: (frame: Uint8Array) => boolean) {
    this.#options = options;
    this.#rng = rng;
    this.#deliver = deliver;
  }

  #happens(chance: number | undefined): boolean {
    return chance !== undefined && chance > 0 && uniform(this.#rng) < chance;
  }

  /** Takes a frame of its own. */
  put(now: number, frame: Uint8Array): boolean {
    const { drop, delayMs = 0, jitterMs = 0, reorder, duplicate, corrupt } = this.#options;
    // The sender of a lost frame believes that it is under way.
    if (this.#happens(drop)) return true;
    if (this.#happens(corrupt)) {
      const bit = Math.floor(uniform(this.#rng) * (frame.length - VNET_HDR_LEN) * 8);
      frame[VNET_HDR_LEN + (bit >>> 3)]! ^= 1 << (bit & 7);
    }
    let dueMs = now + delayMs + (jitterMs > 0 ? uniform(this.#rng) * jitterMs : 0);
    if (this.#happens(reorder)) dueMs += OVERTAKEN_MS;
    else {
      dueMs = Math.max(dueMs, this.#lastDueMs);
      if (delayMs > 0 || jitterMs > 0) this.#lastDueMs = dueMs;
    }
    const copies = this.#happens(duplicate) ? 2 : 1;
    let taken = true;
    for (let i = 0; i < copies; i++) taken = this.#enqueue(now, { dueMs, bytes: frame }) && taken;
    return taken;
  }

  #enqueue(now: number, frame: Waiting): boolean {
    if (frame.dueMs <= now) return this.#deliver(frame.bytes);
    if (this.#waiting.length >= WAITING_MAX) return false;
    let at = this.#waiting.length;
    while (at > 0 && this.#waiting[at - 1]!.dueMs > frame.dueMs) at--;
    this.#waiting.splice(at, 0, frame);
    return true;
  }

  get dueMs(): number {
    return this.#waiting[0]?.dueMs ?? Number.POSITIVE_INFINITY;
  }

  release(now: number): void {
    while (this.dueMs <= now) this.#deliver(this.#waiting.shift()!.bytes);
  }
}

/** The bad wires of one network. Their owner calls {@link Faults.poll}. */
export class Faults {
  readonly #options: FaultOptions;
  readonly #rng: Rng;
  readonly #now: () => number;
  readonly #wires = new Set<FaultyLink>();

  constructor(options: FaultOptions, rng: Rng, now: () => number) {
    this.#options = options;
    this.#rng = rng;
    this.#now = now;
  }

  /** Puts a bad wire before a link, which must carry plain frames: damage must be able to show in a checksum. */
  wrap(inner: Link): Link {
    const wire = new FaultyLink(inner, this.#options, this.#rng, this.#now, () => this.#wires.delete(wire));
    this.#wires.add(wire);
    return wire;
  }

  /** When the next frame in waiting is due, or Infinity. */
  pollAt(): number {
    let at = Number.POSITIVE_INFINITY;
    for (const wire of this.#wires) at = Math.min(at, wire.pollAt());
    return at;
  }

  /** Lets frames go that are due. */
  poll(now: number): void {
    for (const wire of this.#wires) wire.poll(now);
  }
}

class FaultyLink implements Link {
  readonly mtuBytes: number;
  readonly offload = false;
  readonly #inner: Link;
  readonly #now: () => number;
  readonly #closed: () => void;
  readonly #out: Lane;
  readonly #in: Lane;
  #sink: FrameSink = { frame() {} };

  constructor(inner: Link, options: FaultOptions, rng: Rng, now: () => number, closed: () => void) {
    this.#inner = inner;
    this.#now = now;
    this.#closed = closed;
    this.mtuBytes = inner.mtuBytes;
    this.#out = new Lane(options, rng, (frame) => inner.send(frame, 0, frame.length, undefined, 0, 0));
    this.#in = new Lane(options, rng, (frame) => {
      this.#sink.frame(frame, 0, frame.length);
      return true;
    });
  }

  start(sink: FrameSink): void {
    this.#sink = sink;
    this.#inner.start({ frame: (buf, off, end) => void this.#in.put(this.#now(), buf.slice(off, end)) });
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const frame = new Uint8Array(headLen + bodyLen);
    frame.set(head.subarray(headOff, headOff + headLen));
    if (body && bodyLen > 0) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
    return this.#out.put(this.#now(), frame);
  }

  flush(): void {
    this.#inner.flush();
  }

  pollAt(): number {
    return Math.min(this.#in.dueMs, this.#out.dueMs);
  }

  poll(now: number): void {
    this.#in.release(now);
    this.#out.release(now);
    this.#inner.flush();
  }

  close(): void {
    this.#closed();
    this.#inner.close();
  }
}
