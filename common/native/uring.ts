/**
 * io_uring(7), as a way to make many system calls by one: requests are put into a ring that is shared with the kernel, one
 * io_uring_enter(2) carries all of them out in turn, and their results stand in a second ring. Only calls that never block
 * are made so; each is over when the enter returns.
 *
 * Containers' seccomp filters often forbid it, kernel.io_uring_disabled may, and kernels before 6.10 lack some of what
 * is asked of it here: who uses it must have another way. Linux only.
 */
import koffi from 'koffi';
import { SyscallError } from '../errors.ts';
import { cFunction, check, errno } from './libc.ts';
import { NativeMemory } from './memory.ts';

const syscall = cFunction('syscall', 'int', ['int64', 'int64', 'int64', 'int64', 'int64', 'int64', 'int64']);
const mmap = cFunction('mmap', 'void *', ['int64', 'int64', 'int', 'int', 'int', 'int64']);
const munmap = cFunction('munmap', 'int', ['void *', 'int64']);
const closeFd = cFunction('close', 'int', ['int']);

/** The same numbers on all machines (include/uapi/asm-generic/unistd.h). */
const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;

// Linux include/uapi/linux/io_uring.h
const SETUP_SUBMIT_ALL = 1 << 7;
const SETUP_SINGLE_ISSUER = 1 << 12;
const SETUP_DEFER_TASKRUN = 1 << 13;
/** One mapping for both rings. */
const FEAT_SINGLE_MMAP = 1;
/** Came with Linux 6.10; by then TAPs took writes that must not block (6.4), too. */
const FEAT_RECVSEND_BUNDLE = 1 << 14;
const FEATURES: number = FEAT_SINGLE_MMAP | FEAT_RECVSEND_BUNDLE;
const OFF_SQES = 0x10000000;
const ENTER_GETEVENTS = 1;
const SQE_LEN = 64;
const CQE_LEN = 16;
/** Where in struct io_uring_params the offsets within the rings are. */
const SQ_OFF = 40;
const CQ_OFF = 80;
const PARAMS_LEN = 120;

const PROT_READ_WRITE = 3;
const MAP_SHARED_POPULATE = 0x8001;
const EINTR = 4;

/** Requests, by their numbers in enum io_uring_op. */
export const URING_RECVMSG = 10;
export const URING_WRITE = 23;
export const URING_SEND = 26;

interface Mapping {
  pointer: unknown;
  bytes: number;
  words: Int32Array;
}

function map(fd: number, bytes: number, offset: number): Mapping {
  const pointer: bigint = mmap(0, bytes, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, offset);
  if (koffi.address(pointer) === 0xffff_ffff_ffff_ffffn) throw new SyscallError('mmap', 'ENOMEM', errno());
  return { pointer, bytes, words: new Int32Array(koffi.view(pointer, bytes)) };
}

/** A ring for up to `capacity` requests at a time, for one thread. */
export class Uring {
  readonly capacity: number;
  readonly #fd: number;
  readonly #rings: Mapping;
  readonly #entries: Mapping;
  /** Where, in words of the rings. */
  readonly #submissionTail: number;
  readonly #completionHead: number;
  readonly #completionTail: number;
  readonly #completions: number;
  readonly #completionMask: number;
  readonly #results: Int32Array;
  #submitted = 0;
  #count = 0;

  /** @param capacity a power of two. @throws SyscallError EPERM, ENOSYS or EINVAL where it can't be had. */
  constructor(capacity: number) {
    this.capacity = capacity;
    this.#results = new Int32Array(capacity);
    const { view, address } = new NativeMemory(PARAMS_LEN);
    view.setUint32(8, SETUP_SUBMIT_ALL | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN, true);
    this.#fd = check(syscall(SYS_IO_URING_SETUP, capacity, address, 0, 0, 0, 0), 'io_uring_setup');
    const u32 = (off: number): number => view.getUint32(off, true);
    const sqArray = u32(SQ_OFF + 24);
    const completions = u32(CQ_OFF + 20);
    try {
      if ((u32(20) & FEATURES) !== FEATURES) throw new SyscallError('io_uring_setup', 'EINVAL', 22);
      const bytes = Math.max(sqArray + 4 * u32(0), completions + CQE_LEN * u32(4));
      this.#rings = map(this.#fd, bytes, 0);
      this.#entries = map(this.#fd, SQE_LEN * u32(0), OFF_SQES);
    } catch (error) {
      closeFd(this.#fd);
      throw error;
    }
    this.#submissionTail = u32(SQ_OFF + 4) >> 2;
    this.#completionHead = u32(CQ_OFF) >> 2;
    this.#completionTail = u32(CQ_OFF + 4) >> 2;
    this.#completionMask = u32(4) - 1;
    this.#completions = completions >> 2;
    // Requests are always used in turn, so the list of their numbers never changes.
    for (let i = 0; i < capacity; i++) this.#rings.words[(sqArray >> 2) + i] = i;
  }

  /**
   * Adds a request. `flags` are the call's own (MSG_*, RWF_*); a socket address, if there is one, goes with URING_SEND.
   */
  add(
    operation: number,
    fd: number,
    address: number,
    length: number,
    flags: number,
    sockaddr: number,
    sockaddrLen: number,
  ): void {
    const { words } = this.#entries;
    const at = ((this.#submitted + this.#count) & (this.capacity - 1)) << 4;
    words[at] = operation;
    words[at + 1] = fd;
    words[at + 2] = sockaddr;
    words[at + 3] = sockaddr / 0x1_0000_0000;
    words[at + 4] = address;
    words[at + 5] = address / 0x1_0000_0000;
    words[at + 6] = length;
    words[at + 7] = flags;
    words[at + 8] = this.#count;
    words[at + 11] = sockaddrLen;
    this.#count++;
  }

  /** Carries out all requests, in the order in which they were added. @throws SyscallError */
  run(): void {
    const count = this.#count;
    const rings = this.#rings.words;
    this.#count = 0;
    this.#submitted = (this.#submitted + count) | 0;
    rings[this.#submissionTail] = this.#submitted;
    let left = count;
    let done = 0;
    while (done < count) {
      const taken = syscall(SYS_IO_URING_ENTER, this.#fd, left, count - done, ENTER_GETEVENTS, 0, 0);
      if (taken >= 0) left -= taken;
      else if (errno() !== EINTR) check(taken, 'io_uring_enter');
      done += this.#reap();
    }
  }

  #reap(): number {
    const rings = this.#rings.words;
    const tail = rings[this.#completionTail]!;
    const first = rings[this.#completionHead]!;
    for (let head = first; head !== tail; head = (head + 1) | 0) {
      const at = this.#completions + ((head & this.#completionMask) << 2);
      this.#results[rings[at]!] = rings[at + 2]!;
    }
    rings[this.#completionHead] = tail;
    return (tail - first) | 0;
  }

  /** What request `index` of the last {@link run} gave: what its call returns, or a negative errno. */
  result(index: number): number {
    return this.#results[index]!;
  }

  close(): void {
    closeFd(this.#fd);
    for (const { pointer, bytes } of [this.#rings, this.#entries]) munmap(pointer, bytes);
  }
}
