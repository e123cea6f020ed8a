/**
 * Datagrams of different sockets that come or go at the same time. Each port of a guest has a socket of its own, so there is seldom
 * more than one datagram for one call of sendmmsg(2) or recvmmsg(2); what is gathered here are calls to many sockets.
 *
 * Those from a TAP's frames are sent when the batch of frames ends (host/receive-batch.ts); sockets that become readable
 * in one turn of the loop are read when its events have been handed out.
 */
import { CALLS_MAX, type Calls, singleCalls } from '#common/native/calls';
import { type Received, ReceiveMany } from '#common/native/datagrams';
import { addressIn, NativeMemory } from '#common/native/memory';
import { putSockaddr } from '#common/native/sockaddr';
import { calls } from './calls.ts';
import type { Poller } from './poller.ts';
import { type Gatherer, receiveBatch } from './receive-batch.ts';

/** Largest UDP payload, and a byte over. */
export const DATAGRAM_BYTES_MAX = 65536;
/** Datagrams received together. */
const RECEIVED_MAX = 32;
/** For one socket address; aligned. */
const ADDRESS_LEN = 32;

/** Who sends by a batch. */
export interface BatchedSender {
  readonly fd: number;
  /** A datagram was not sent; true: it is worth another try. */
  notSent(errno: number): boolean;
}

/** Datagrams of the receive batch that are still to be sent. */
export class SendBatch implements Gatherer {
  readonly #calls: Calls;
  readonly #senders: (BatchedSender | undefined)[] = new Array(CALLS_MAX).fill(undefined);
  readonly #offsets = new Int32Array(CALLS_MAX);
  readonly #lengths = new Int32Array(CALLS_MAX);
  readonly #addresses = new NativeMemory(ADDRESS_LEN * CALLS_MAX);
  readonly #addressLengths = new Int32Array(CALLS_MAX);
  #count = 0;
  #isHeld = false;

  constructor(together: Calls = calls) {
    this.#calls = together;
  }

  /** Takes a datagram that lies in the receive batch. */
  add(
    sender: BatchedSender,
    off: number,
    len: number,
    addr: Uint8Array,
    addrOff: number,
    port: number,
  ): void {
    if (this.#count === CALLS_MAX) this.send();
    if (!this.#isHeld) receiveBatch.hold(this);
    this.#isHeld = true;
    const index = this.#count++;
    this.#senders[index] = sender;
    this.#offsets[index] = off;
    this.#lengths[index] = len;
    this.#addressLengths[index] = putSockaddr(this.#addresses, ADDRESS_LEN * index, addr, addrOff, port);
  }

  flush(): void {
    this.#isHeld = false;
    this.send();
  }

  /** Sends all of them. */
  send(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    const via = count === 1 ? singleCalls : this.#calls;
    for (let i = 0; i < count; i++) this.#addCall(via, i);
    via.run();
    for (let i = 0; i < count; i++) {
      const result = via.result(i);
      if (result < 0 && this.#senders[i]!.notSent(-result)) this.#addCall(singleCalls, i);
      this.#senders[i] = undefined;
    }
    singleCalls.run();
  }

  #addCall(via: Calls, index: number): void {
    via.send(
      this.#senders[index]!.fd,
      addressIn(receiveBatch.bytes, this.#offsets[index]!),
      this.#lengths[index]!,
      this.#addresses.address + ADDRESS_LEN * index,
      this.#addressLengths[index]!,
    );
  }
}

/** The batch of this thread. */
export const sendBatch: SendBatch = new SendBatch();

/** Who is read by a batch. */
export interface BatchedReader {
  /** Negative once it is closed. */
  readonly fd: number;
  /** A datagram of that length lies at an offset, or a negative errno says why none does. */
  came(length: number, buf: Uint8Array, off: number, received: Received): void;
}

/** Sockets that have become readable in the loop's turn. */
export class ReadBatch {
  readonly #poller: Poller;
  readonly #calls: Calls;
  #many: ReceiveMany | undefined;
  #readers: BatchedReader[] = [];
  readonly #received: Received = { addr: new Uint8Array(16), port: 0, ttl: 0, trafficClass: 0 };

  constructor(poller: Poller, together: Calls = calls) {
    this.#poller = poller;
    this.#calls = together;
  }

  /** Reads one datagram of a socket, together with those of others. */
  add(reader: BatchedReader): void {
    if (this.#readers.length === 0) this.#poller.defer(this.#run);
    this.#readers.push(reader);
  }

  readonly #run = (): void => {
    const readers = this.#readers;
    this.#readers = [];
    for (let from = 0; from < readers.length; from += RECEIVED_MAX)
      this.#receive(readers.slice(from, from + RECEIVED_MAX).filter(({ fd }) => fd >= 0));
  };

  #receive(readers: BatchedReader[]): void {
    this.#many ??= new ReceiveMany(RECEIVED_MAX, DATAGRAM_BYTES_MAX);
    const many = this.#many;
    const via = readers.length === 1 ? singleCalls : this.#calls;
    for (let i = 0; i < readers.length; i++) many.add(via, i, readers[i]!.fd);
    via.run();
    // Calls that are made meanwhile, from within came(), have results of their own.
    many.keep(via, readers.length);
    for (let i = 0; i < readers.length; i++)
      if (readers[i]!.fd >= 0)
        readers[i]!.came(many.take(i, this.#received), many.bytes, many.slot(i), this.#received);
  }
}
