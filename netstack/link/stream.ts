/**
 * Links over a byte stream: a length, then a frame, and so on, as virtual machines speak. QEMU writes the length in four
 * bytes, most significant first (net/stream.c); hyperkit, vpnkit and gvproxy in two, least significant first.
 *
 * Bytes are read in large pieces and frames handed out where they lie. The stack wants a virtio_net_hdr before each frame:
 * the length field and the end of the frame before it, which has been dealt with, are overwritten with zeros, so
 * nothing is copied. Outgoing frames are gathered and written with one system call per batch. What the peer does not read
 * waits in a bounded buffer; when that is full, frames are dropped.
 */
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import type { Poller } from '../host/poller.ts';
import { get32, put32 } from '../wire/address.ts';
import { type FrameSink, type Link, VNET_HDR_LEN } from './link.ts';
import type { Preamble } from './preamble.ts';

/** Read at once, and kept while a frame is incomplete. */
const RECEIVE_BYTES = 256 * 1024;
/** Waits for a slow peer; about what a socket buffer holds. */
const SEND_BYTES = 512 * 1024;
/** Reads in one turn of the loop. */
const READS_PER_TURN = 4;
/** Longest frame that a peer may announce; the others accept 65535 or 131072. */
const FRAME_LEN_MAX = 65536 + 14;
const ETHERNET_HEADER_LEN = 14;
/** Room before the first frame of the buffer for a virtio_net_hdr. */
const HEADROOM = 16;

/** How a stream marks its frames. */
export interface Framing {
  readonly name: string;
  readonly headerLen: number;
  readonly frameLenMax: number;
  readLength(buf: Uint8Array, off: number): number;
  writeLength(buf: Uint8Array, off: number, length: number): void;
}

/** `u32be length | frame`: QEMU's stream and socket back ends, passt. */
export const QEMU_FRAMING: Framing = {
  name: 'qemu',
  headerLen: 4,
  frameLenMax: FRAME_LEN_MAX,
  readLength: get32,
  writeLength: put32,
};

/** `u16le length | frame`: hyperkit, vpnkit's data phase, gvproxy's stdio and /connect. */
export const LE16_FRAMING: Framing = {
  name: 'le16',
  headerLen: 2,
  frameLenMax: 0xffff,
  readLength: (buf, off) => buf[off]! | (buf[off + 1]! << 8),
  writeLength(buf, off, length) {
    buf[off] = length;
    buf[off + 1] = length >>> 8;
  },
};

/** Why a stream link ended. */
export type StreamEnd = { reason: 'closed' } | { reason: 'failed' | 'protocol'; detail: string };

/** How a stream link is made. */
export interface StreamLinkOptions {
  poller: Poller;
  framing: Framing;
  /** Descriptor to read from; owned by the link from now on. */
  readFd: number;
  /** Descriptor to write to; the same one for sockets. */
  writeFd: number;
  mtuBytes: number;
  /** What the peer says before its first frame. */
  preamble?: Preamble;
  /** The peer has gone, or broke the protocol. The link is closed already. */
  ended: (end: StreamEnd) => void;
}

const EVENTS = (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) >>> 0;

/** A link over a connected stream. */
export class StreamLink implements Link {
  readonly mtuBytes: number;
  readonly offload = false;
  readonly batches = true;
  readonly #poller: Poller;
  readonly #framing: Framing;
  readonly #readFd: number;
  readonly #writeFd: number;
  readonly #ended: (end: StreamEnd) => void;
  #preamble: Preamble | undefined;
  #sink: FrameSink = { frame() {} };
  #open = true;

  readonly #in: Uint8Array = new Uint8Array(new ArrayBuffer(HEADROOM + RECEIVE_BYTES));
  /** Where unread bytes begin and end. */
  #inStart = HEADROOM;
  #inEnd = HEADROOM;

  readonly #out: Uint8Array = new Uint8Array(new ArrayBuffer(SEND_BYTES));
  #outStart = 0;
  #outEnd = 0;
  #writable = true;

  constructor(options: StreamLinkOptions) {
    this.#poller = options.poller;
    this.#framing = options.framing;
    this.#readFd = options.readFd;
    this.#writeFd = options.writeFd;
    this.mtuBytes = options.mtuBytes;
    this.#preamble = options.preamble;
    this.#ended = options.ended;
  }

  start(sink: FrameSink): void {
    this.#sink = sink;
    this.#poller.watch(this.#readFd, EVENTS, (mask) => this.#events(mask));
    if (this.#writeFd !== this.#readFd)
      this.#poller.watch(this.#writeFd, (EPOLLOUT | EPOLLET) >>> 0, (mask) => this.#events(mask & ~EPOLLHUP));
  }

  #events(mask: number): void {
    if (mask & EPOLLOUT) {
      this.#writable = true;
      this.flush();
    }
    if (mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) this.#read(READS_PER_TURN);
  }

  #read(budget: number): void {
    for (let i = 0; i < budget && this.#open; i++) {
      const room = this.#in.length - this.#inEnd;
      const count = socket.read(this.#readFd, this.#in, this.#inEnd, room);
      if (count <= 0) {
        const code = count < 0 ? errnoName(socket.socketErrno()) : '';
        if (count === 0) this.#end({ reason: 'closed' });
        else if (code !== 'EAGAIN' && code !== 'EINTR') this.#end({ reason: 'failed', detail: code });
        return;
      }
      this.#inEnd += count;
      this.#take();
      if (count < room) return;
    }
    // Edge-triggered: what is left must be asked for without another edge.
    if (this.#open) this.#poller.defer(() => this.#read(READS_PER_TURN));
  }

  /** Hands out the whole frames of the buffer and moves the rest to its beginning. */
  #take(): void {
    if (this.#preamble && !this.#greet(this.#preamble)) return;
    const { headerLen, frameLenMax } = this.#framing;
    const buf = this.#in;
    while (this.#open && this.#inEnd - this.#inStart >= headerLen) {
      const length = this.#framing.readLength(buf, this.#inStart);
      if (length > frameLenMax) {
        this.#end({ reason: 'protocol', detail: `a frame of ${length} bytes was announced` });
        return;
      }
      const frame = this.#inStart + headerLen;
      if (this.#inEnd < frame + length) break;
      this.#inStart = frame + length;
      if (length < ETHERNET_HEADER_LEN) continue;
      buf.fill(0, frame - VNET_HDR_LEN, frame);
      this.#sink.frame(buf, frame - VNET_HDR_LEN, frame + length);
    }
    if (this.#open) this.#sink.flush?.();
    this.#compact();
  }

  #compact(): void {
    const rest = this.#inEnd - this.#inStart;
    if (rest > 0 && this.#inStart > HEADROOM) this.#in.copyWithin(HEADROOM, this.#inStart, this.#inEnd);
    this.#inStart = HEADROOM;
    this.#inEnd = HEADROOM + rest;
  }

  /** Feeds the preamble for as long as it eats. Returns true when frames follow. */
  #greet(preamble: Preamble): boolean {
    for (;;) {
      const step = preamble.receive(this.#in, this.#inStart, this.#inEnd);
      this.#inStart += step.consumed;
      if (step.reply && this.#outEnd + step.reply.length <= SEND_BYTES) {
        this.#out.set(step.reply, this.#outEnd);
        this.#outEnd += step.reply.length;
        this.flush();
      }
      if (step.state === 'done') {
        this.#preamble = undefined;
        return true;
      }
      if (step.state === 'refused') {
        this.#end({ reason: 'protocol', detail: step.detail });
        return false;
      }
      if (step.consumed === 0) {
        this.#compact();
        return false;
      }
    }
  }

  send(
    head: Uint8Array,
    headOff: number,
    headLen: number,
    body: Uint8Array | undefined,
    bodyOff: number,
    bodyLen: number,
  ): boolean {
    const { headerLen, frameLenMax } = this.#framing;
    const length = headLen - VNET_HDR_LEN + bodyLen;
    if (!this.#open || this.#preamble || length > frameLenMax) return false;
    if (this.#outEnd + headerLen + length > SEND_BYTES) {
      this.flush();
      this.#reclaim();
      if (this.#outEnd + headerLen + length > SEND_BYTES) return false;
    }
    const out = this.#out;
    let at = this.#outEnd;
    this.#framing.writeLength(out, at, length);
    at += headerLen;
    out.set(head.subarray(headOff + VNET_HDR_LEN, headOff + headLen), at);
    at += headLen - VNET_HDR_LEN;
    if (body && bodyLen > 0) out.set(body.subarray(bodyOff, bodyOff + bodyLen), at);
    this.#outEnd = at + bodyLen;
    return true;
  }

  #reclaim(): void {
    if (this.#outStart === 0) return;
    this.#out.copyWithin(0, this.#outStart, this.#outEnd);
    this.#outEnd -= this.#outStart;
    this.#outStart = 0;
  }

  flush(): void {
    if (!this.#open || !this.#writable || this.#outStart === this.#outEnd) return;
    const want = this.#outEnd - this.#outStart;
    const count = this.#isSocket
      ? socket.send(this.#writeFd, this.#out, this.#outStart, want)
      : socket.write(this.#writeFd, this.#out, this.#outStart, want);
    if (count === want) {
      this.#outStart = 0;
      this.#outEnd = 0;
      return;
    }
    this.#writable = false;
    // An error here comes back as an event of the read side, which ends the link.
    if (count > 0) this.#outStart += count;
  }

  get #isSocket(): boolean {
    return this.#readFd === this.#writeFd;
  }

  #end(end: StreamEnd): void {
    if (!this.#open) return;
    this.close();
    this.#ended(end);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const fd of new Set([this.#readFd, this.#writeFd])) {
      this.#poller.unwatch(fd);
      socket.close(fd);
    }
  }
}
