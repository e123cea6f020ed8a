/**
 * System calls that never block, gathered to be made together. Where the kernel permits io_uring, {@link Calls.run} makes all of
 * them by one system call; elsewhere each is made when it is added.
 */
import { SyscallError } from '../errors.ts';
import { cFunction, errno } from './libc.ts';
import { URING_RECVMSG, URING_SEND, URING_WRITE, Uring } from './uring.ts';

const recvmsgCall = cFunction('recvmsg', 'int', ['int', 'int64', 'int']);
const sendtoCall = cFunction('sendto', 'int', ['int', 'int64', 'int64', 'int', 'int64', 'int']);
const writeCall = cFunction('write', 'int', ['int', 'int64', 'int64']);

// Linux include/linux/socket.h, include/uapi/linux/fs.h
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const RWF_NOWAIT = 0x8;

/** Most calls that may be added before they are run. */
export const CALLS_MAX = 64;

/** Set to 0 in the environment, it keeps to one call each: for comparisons, and for who does not trust io_uring. */
const SWITCH = 'DRYDOCK_IO_URING';

/** Memory and descriptors that an added call mentions must stay as they are until it has run. */
export interface Calls {
  /** Several together, or each by itself. */
  readonly kind: 'io_uring' | 'single';
  /** write(2) to a non-blocking descriptor. */
  write(fd: number, address: number, length: number): void;
  /** sendto(2). */
  send(fd: number, address: number, length: number, sockaddr: number, sockaddrLen: number): void;
  /** recvmsg(2) with the struct msghdr at an address. */
  receiveMessage(fd: number, header: number): void;
  /** Sees to it that all added calls are made, in their order. */
  run(): void;
  /** What the `index`-th call of the last run returned, or a negative errno. */
  result(index: number): number;
  close(): void;
}

/** Makes each call when it is added. */
class SingleCalls implements Calls {
  readonly kind = 'single';
  readonly #results = new Int32Array(CALLS_MAX);
  #count = 0;

  write(fd: number, address: number, length: number): void {
    this.#keep(writeCall(fd, address, length));
  }

  send(fd: number, address: number, length: number, sockaddr: number, sockaddrLen: number): void {
    this.#keep(sendtoCall(fd, address, length, MSG_DONTWAIT | MSG_NOSIGNAL, sockaddr, sockaddrLen));
  }

  receiveMessage(fd: number, header: number): void {
    this.#keep(recvmsgCall(fd, header, MSG_DONTWAIT));
  }

  #keep(result: number): void {
    this.#results[this.#count++] = result < 0 ? -errno() : result;
  }

  run(): void {
    this.#count = 0;
  }

  result(index: number): number {
    return this.#results[index]!;
  }

  close(): void {}
}

/** One by one. A call that has no company is made so: a ring costs more than one call, if less than two. */
export const singleCalls: Calls = new SingleCalls();

/** Makes the added calls by one system call. */
class RingCalls implements Calls {
  readonly kind = 'io_uring';
  readonly #ring: Uring;

  constructor(ring: Uring) {
    this.#ring = ring;
  }

  write(fd: number, address: number, length: number): void {
    this.#ring.add(URING_WRITE, fd, address, length, RWF_NOWAIT, 0, 0);
  }

  send(fd: number, address: number, length: number, sockaddr: number, sockaddrLen: number): void {
    this.#ring.add(URING_SEND, fd, address, length, MSG_DONTWAIT | MSG_NOSIGNAL, sockaddr, sockaddrLen);
  }

  receiveMessage(fd: number, header: number): void {
    this.#ring.add(URING_RECVMSG, fd, header, 1, MSG_DONTWAIT, 0, 0);
  }

  run(): void {
    this.#ring.run();
  }

  result(index: number): number {
    return this.#ring.result(index);
  }

  close(): void {
    this.#ring.close();
  }
}

/** Calls by io_uring if this kernel permits it to this process, else one by one. @param ring tests stand in for the kernel. */
export function openCalls(ring: () => Uring = () => new Uring(CALLS_MAX)): Calls {
  if (process.env[SWITCH] === '0') return singleCalls;
  try {
    return new RingCalls(ring());
  } catch (error) {
    if (error instanceof SyscallError) return singleCalls;
    throw error;
  }
}
