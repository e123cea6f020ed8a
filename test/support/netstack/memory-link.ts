/** A link in memory: keeps what is sent, delivers what a test gives it. */
import type { FrameSink, Link } from '../../../netstack/link/link.ts';

export interface MemoryLinkOptions {
  mtuBytes?: number;
  offload?: boolean;
}

export class MemoryLink implements Link {
  readonly mtuBytes: number;
  readonly offload: boolean;
  /** Sent frames with their virtio_net_hdr, oldest first. */
  sent: Uint8Array[] = [];
  /** While true, sends are refused as by a guest that does not read. */
  full = false;
  flushes = 0;
  closed = false;
  #sink: FrameSink | undefined;

  constructor(options: MemoryLinkOptions = {}) {
    this.mtuBytes = options.mtuBytes ?? 1500;
    this.offload = options.offload ?? false;
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    if (this.full) return false;
    const frame = new Uint8Array(headLen + bodyLen);
    frame.set(head.subarray(headOff, headOff + headLen));
    if (body) frame.set(body.subarray(bodyOff, bodyOff + bodyLen), headLen);
    this.sent.push(frame);
    return true;
  }

  flush(): void {
    this.flushes++;
  }

  start(sink: FrameSink): void {
    this.#sink = sink;
  }

  close(): void {
    this.closed = true;
  }

  /** Delivers a frame, given with its virtio_net_hdr. */
  deliver(frame: Uint8Array): void {
    this.#sink?.frame(frame, 0, frame.length);
  }

  /** The frames sent since the last call. */
  take(): Uint8Array[] {
    return this.sent.splice(0);
  }
}
