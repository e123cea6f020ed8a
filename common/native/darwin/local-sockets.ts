/**
 * Unix sockets that descriptors are sent over, which Node's own sockets do not take. Nothing here has run on a Mac: numbers and
 * layouts are those of abi.ts.
 */
import { NativeMemory } from '../memory.ts';
import { CONSTANTS, STRUCTS } from './abi.ts';
import { DarwinCalls } from './calls.ts';
import { callOf, type DarwinLibrary, systemLibrary } from './library.ts';

const { AF_UNIX, SOCK_STREAM, SOL_SOCKET, SCM_RIGHTS, MSG_DONTWAIT } = CONSTANTS['sys/socket.h'];
const { fields: MESSAGE, size: MESSAGE_LEN } = STRUCTS['struct msghdr'];
const { fields: VECTOR, size: VECTOR_LEN } = STRUCTS['struct iovec'];
const { fields: CONTROL, size: CONTROL_HEAD_LEN } = STRUCTS['struct cmsghdr'];
const { fields: ADDRESS, size: ADDRESS_LEN } = STRUCTS['struct sockaddr_un'];

const BACKLOG = 100;
/** Most bytes that one look brings. */
const DATA_LEN = 8192;
/** Room for what one message may bring; the kernel closes what has none. */
const CONTROL_LEN = 64;
/** Where the parts of a message are in the block that the kernel fills. */
const VECTOR_AT = MESSAGE_LEN;
const CONTROL_AT = VECTOR_AT + VECTOR_LEN;
const DATA_AT = CONTROL_AT + CONTROL_LEN;

/** What came over a connection. */
export interface ReceivedMessage {
  bytes: Uint8Array;
  /** They are the caller's now. */
  descriptors: number[];
}

/** See the module's head. Calls throw SyscallError. */
export class LocalSockets {
  readonly #library: DarwinLibrary;
  readonly #calls: DarwinCalls;
  readonly #block = new NativeMemory(DATA_AT + DATA_LEN);

  constructor(library: DarwinLibrary = systemLibrary()) {
    this.#library = library;
    this.#calls = new DarwinCalls(library);
  }

  /** Longest path that a socket can have; the rest of struct sockaddr_un, with its end. */
  static readonly PATH_BYTES_MAX: number = ADDRESS_LEN - ADDRESS.sun_path - 1;

  /** A listener that does not wait. */
  listen(path: string): number {
    const address = Buffer.alloc(ADDRESS_LEN);
    address.writeUInt8(ADDRESS_LEN, ADDRESS.sun_len);
    address.writeUInt8(AF_UNIX, ADDRESS.sun_family);
    address.write(path, ADDRESS.sun_path);
    const fd = callOf(this.#library, 'socket', AF_UNIX, SOCK_STREAM, 0);
    try {
      this.#calls.setCloseOnExec(fd, true);
      this.#calls.setNonBlocking(fd);
      callOf(this.#library, 'bind', fd, address, ADDRESS_LEN);
      callOf(this.#library, 'listen', fd, BACKLOG);
      return fd;
    } catch (error) {
      this.#calls.close(fd);
      throw error;
    }
  }

  /** The next connection, which does not wait either; undefined when there is none now. */
  accept(listener: number): number | undefined {
    const fd = Number(this.#library.function('accept')(listener, null, null));
    if (fd < 0) return undefined;
    try {
      this.#calls.setCloseOnExec(fd, true);
      this.#calls.setNonBlocking(fd);
      return fd;
    } catch (error) {
      this.#calls.close(fd);
      throw error;
    }
  }

  /** What there is; no bytes at the end of the stream, undefined when there is nothing now. */
  receive(fd: number): ReceivedMessage | undefined {
    const { view, address, bytes } = this.#block;
    bytes.fill(0, 0, DATA_AT);
    this.#block.setPointer(MESSAGE.msg_iov, address + VECTOR_AT);
    view.setInt32(MESSAGE.msg_iovlen, 1, true);
    this.#block.setPointer(MESSAGE.msg_control, address + CONTROL_AT);
    view.setUint32(MESSAGE.msg_controllen, CONTROL_LEN, true);
    this.#block.setPointer(VECTOR_AT + VECTOR.iov_base, address + DATA_AT);
    this.#block.setPointer(VECTOR_AT + VECTOR.iov_len, DATA_LEN);
    const length = Number(this.#library.function('recvmsg')(fd, bytes, MSG_DONTWAIT));
    if (length < 0) {
      if (this.#library.errno() === CONSTANTS['errno.h'].EAGAIN) return undefined;
      return { bytes: new Uint8Array(), descriptors: [] };
    }
    const descriptors = this.#descriptors(view.getUint32(MESSAGE.msg_controllen, true));
    for (const descriptor of descriptors) this.#calls.setCloseOnExec(descriptor, true);
    return { bytes: bytes.slice(DATA_AT, DATA_AT + length), descriptors };
  }

  /** Of a single control message, which is all that one sendmsg(2) of such a client makes. */
  #descriptors(controlLen: number): number[] {
    const { view } = this.#block;
    if (controlLen < CONTROL_HEAD_LEN) return [];
    const rights =
      view.getInt32(CONTROL_AT + CONTROL.cmsg_level, true) === SOL_SOCKET &&
      view.getInt32(CONTROL_AT + CONTROL.cmsg_type, true) === SCM_RIGHTS;
    const end = Math.min(view.getUint32(CONTROL_AT + CONTROL.cmsg_len, true), controlLen, CONTROL_LEN);
    if (!rights) return [];
    return Array.from({ length: Math.floor((end - CONTROL_HEAD_LEN) / 4) }, (_, index) =>
      view.getInt32(CONTROL_AT + CONTROL_HEAD_LEN + 4 * index, true),
    );
  }

  /** Whether all of it could be written now. */
  write(fd: number, bytes: Uint8Array): boolean {
    try {
      return this.#calls.writeSome(fd, bytes) === bytes.length;
    } catch {
      return false;
    }
  }

  close(fd: number): void {
    this.#calls.close(fd);
  }
}
