/**
 * A double of Darwin's C library: it records every call, holds its arguments against the table of prototypes, answers as
 * the manuals say, and fails the call that it is told to. It shows that our side asks for the right things in the right
 * order and clears up; it says nothing about what Apple's kernel does.
 */
import { closeSync, openSync } from 'node:fs';
import { CONSTANTS, PROTOTYPES, parsePrototype, STRUCTS } from '#common/native/darwin/abi';
import type { DarwinLibrary } from '#common/native/darwin/library';
import { addressIn } from '#common/native/memory';
import { pipe } from '#common/native/process';

const EPERM = 1;
const declared = new Map(
  Object.values(PROTOTYPES)
    .flat()
    .map((text) => [parsePrototype(text).name, parsePrototype(text)]),
);

/** How an argument fits the type that the table has for it. */
function fits(type: string, value: unknown): boolean {
  if (type === 'str') return value === null || typeof value === 'string';
  if (type === 'void *') return value === null || value instanceof Uint8Array;
  if (type === 'const char **')
    return (
      Array.isArray(value) &&
      value.at(-1) === null &&
      value.slice(0, -1).every((part) => typeof part === 'string')
    );
  if (type === '_Out_ char **') return Array.isArray(value) && value.length === 1;
  const [, unsigned, bits] = /^(u?)int(\d+)$/.exec(type)!;
  const span = 2 ** Number(bits);
  if (typeof value !== 'number' || !Number.isInteger(value)) return false;
  return unsigned ? value >= 0 && value < span : value >= -span / 2 && value < span / 2;
}

/** A process of a jail. */
export interface FakeProcess {
  uid: number;
  footprintBytes: number;
  limit?: Uint8Array;
}

/** See the module's head. */
export class DarwinDouble implements DarwinLibrary {
  /** `name argument argument`, with bytes in hex. */
  readonly calls: string[] = [];
  /** The number of the call to fail. */
  failing = -1;
  /** Whether System Integrity Protection leaves the files alone. */
  ownRoots = true;
  /** Processes of jails, by number. */
  readonly processes: Map<number, FakeProcess> = new Map();
  /** Called for kill(2). */
  killed: (pid: number, signal: number) => void = () => {};
  /** Events that the next kevent(2) tells of, each a whole struct kevent. */
  readonly events: Uint8Array[] = [];
  /** What the next calls of recvmsg(2) bring; after them there is nothing. */
  readonly incoming: { bytes: Uint8Array; descriptors: number[] }[] = [];
  /** What write(2) was given. */
  readonly written: Buffer[] = [];
  #uid = 0;

  /** What a failure is put down to. */
  errnoValue: number = EPERM;

  errno(): number {
    return this.errnoValue;
  }

  function(name: string): (...args: never[]) => unknown {
    const { parameters } = declared.get(name)!;
    return (...args: unknown[]) => {
      this.#check(name, parameters, args);
      this.calls.push([name, ...args.map(describeArgument)].join(' '));
      if (this.calls.length - 1 === this.failing) return name === 'dlopen' ? null : -1;
      return this.#answer(name, args);
    };
  }

  #check(name: string, parameters: string[], args: unknown[]): void {
    const variadic = parameters.at(-1) === '...';
    const fixed = variadic ? parameters.slice(0, -1) : parameters;
    for (const [index, type] of fixed.entries())
      if (!fits(type, args[index]))
        throw new Error(`${name}: argument ${index} is no ${type}: ${args[index]}`);
    // koffi wants each variable argument after its type.
    const rest = args.slice(fixed.length);
    for (let index = 0; index < rest.length; index += 2)
      if (!fits(rest[index] === 'int' ? 'int32' : String(rest[index]), rest[index + 1]))
        throw new Error(`${name}: variable argument ${rest[index + 1]} is no ${rest[index]}`);
    if (!variadic && rest.length > 0) throw new Error(`${name} has too many arguments`);
  }

  #answer(name: string, args: unknown[]): unknown {
    const bytes = (index: number): Buffer => {
      const view = args[index] as Uint8Array;
      return Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    };
    switch (name) {
      case 'csr_get_active_config':
        bytes(0).writeUInt32LE(this.ownRoots ? 2 : 0);
        return 0;
      case 'setuid':
        if (args[0] === 0 && this.#uid !== 0) return -1;
        this.#uid = args[0] as number;
        return 0;
      case 'dlopen':
        return {};
      case 'posix_openpt':
      case 'socket':
      case 'accept':
        return openSync('/dev/null', 'r+');
      case 'close':
        closeSync(args[0] as number);
        return 0;
      case 'pipe': {
        const { read, write } = pipe();
        bytes(0).writeInt32LE(read, 0);
        bytes(0).writeInt32LE(write, 4);
        return 0;
      }
      case 'ioctl':
        if (args[1] === 0x40807453) bytes(3).write('/dev/null');
        if (args[1] === 0xc0644e03) bytes(3).writeUInt32LE(7, 0);
        return 0;
      case 'getsockopt':
        bytes(3).write('utun5');
        return 0;
      case 'proc_listpids': {
        const pids = [...this.processes].filter(([, { uid }]) => uid === args[1]).map(([pid]) => pid);
        for (const [index, pid] of pids.entries()) bytes(2).writeInt32LE(pid, 4 * index);
        return 4 * pids.length;
      }
      case 'proc_pidinfo':
        if (!this.processes.has(args[0] as number)) return 0;
        bytes(3).writeUInt32LE(2, STRUCTS['struct proc_bsdinfo'].fields.pbi_status);
        bytes(3).writeBigUInt64LE(5n, STRUCTS['struct proc_bsdinfo'].fields.pbi_start_tvsec);
        return STRUCTS['struct proc_bsdinfo'].size;
      case 'proc_pid_rusage': {
        const process = this.processes.get(args[0] as number);
        if (!process) return -1;
        const { fields } = STRUCTS['struct rusage_info_v4'];
        bytes(2).writeBigUInt64LE(24n, fields.ri_user_time);
        bytes(2).writeBigUInt64LE(BigInt(process.footprintBytes), fields.ri_phys_footprint);
        return 0;
      }
      case 'mach_timebase_info':
        bytes(0).writeUInt32LE(125, 0);
        bytes(0).writeUInt32LE(3, 4);
        return 0;
      case 'memorystatus_control': {
        const process = this.processes.get(args[1] as number);
        if (!process) return -1;
        if (args[0] === 7) process.limit = Uint8Array.from(bytes(3));
        else if (process.limit) bytes(3).set(process.limit);
        return 0;
      }
      case 'kqueue':
        return openSync('/dev/null', 'r+');
      case 'kevent': {
        const told = this.events.splice(0, args[4] as number);
        for (const [index, event] of told.entries()) bytes(3).set(event, index * event.length);
        return told.length;
      }
      case 'recvmsg': {
        const came = this.incoming.shift();
        if (!came) return -1;
        return deliver(bytes(1), came);
      }
      case 'write':
        this.written.push(Buffer.from(bytes(1)));
        return args[2];
      case 'kill':
        this.killed(args[0] as number, args[1] as number);
        return 0;
      default:
        return 0;
    }
  }
}

function describeArgument(value: unknown): string {
  if (value instanceof Uint8Array) return `<${Buffer.from(value).toString('hex')}>`;
  if (Array.isArray(value)) return `[${value.join(' ')}]`;
  return String(value);
}

/** Fills in what a message points to, all of which is in one block that begins with it. */
function deliver(
  block: Buffer,
  { bytes, descriptors }: { bytes: Uint8Array; descriptors: number[] },
): number {
  const { fields: message } = STRUCTS['struct msghdr'];
  const start = addressIn(block, 0);
  const at = (pointerAt: number): number => Number(block.readBigUInt64LE(pointerAt)) - start;
  const vector = at(message.msg_iov);
  const room = Number(block.readBigUInt64LE(vector + STRUCTS['struct iovec'].fields.iov_len));
  if (bytes.length > room) throw new Error(`there is room for ${room} bytes`);
  block.set(bytes, at(vector));
  const control = at(message.msg_control);
  const { size, fields } = STRUCTS['struct cmsghdr'];
  const length = descriptors.length === 0 ? 0 : size + 4 * descriptors.length;
  if (length > 0) {
    block.writeUInt32LE(length, control + fields.cmsg_len);
    block.writeInt32LE(CONSTANTS['sys/socket.h'].SOL_SOCKET, control + fields.cmsg_level);
    block.writeInt32LE(CONSTANTS['sys/socket.h'].SCM_RIGHTS, control + fields.cmsg_type);
    for (const [index, fd] of descriptors.entries()) block.writeInt32LE(fd, control + size + 4 * index);
  }
  block.writeUInt32LE(length, message.msg_controllen);
  return bytes.length;
}
