/**
 * The kernel's side of the FUSE protocol, for tests without a mount: it writes requests and reads replies byte by byte
 * from the header file's layout, and shares no code with the server.
 */
import { ManualClock } from '#common/clock';
import { MemoryFs } from '../../fsbridge/backing/memory-fs.ts';
import { allocate, type Memory } from '../../fsbridge/memory.ts';
import type { Aside } from '../../fsbridge/ops/server.ts';
import { defaultPolicy, type Policy } from '../../fsbridge/policy/options.ts';
import { Session } from '../../fsbridge/session.ts';
import { linuxLayout } from '../../fsbridge/wire/layout-linux.ts';

/** Fields of a struct in order: numbers are u32, bigints u64, strings names with NUL, bytes as they are. */
export type Field = number | bigint | string | Uint8Array;

export function encode(fields: Field[]): Buffer {
  return Buffer.concat(
    fields.map((field) => {
      if (typeof field === 'string') return Buffer.from(`${field}\0`, 'latin1');
      if (typeof field === 'number') {
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32LE(field >>> 0);
        return bytes;
      }
      if (typeof field === 'bigint') {
        const bytes = Buffer.alloc(8);
        bytes.writeBigUInt64LE(BigInt.asUintN(64, field));
        return bytes;
      }
      return Buffer.from(field);
    }),
  );
}

export interface Reply {
  unique: bigint;
  /** 0 or a negative errno. */
  error: number;
  body: Buffer;
}

export interface Entry {
  node: bigint;
  generation: bigint;
  ino: bigint;
  size: bigint;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
}

export interface Dirent {
  name: string;
  ino: bigint;
  cookie: bigint;
  type: number;
  entry?: Entry;
}

export class FakeKernel {
  readonly clock: ManualClock = new ManualClock();
  readonly host: MemoryFs;
  readonly session: Session;
  readonly bugs: unknown[] = [];
  uid = 0;
  gid = 0;
  #unique = 2n;
  readonly #request: Memory = allocate(1 << 17);
  readonly #reply: Memory = allocate(1 << 17);

  constructor(policy: Partial<Policy> = {}, host?: MemoryFs, aside?: Aside) {
    this.host = host ?? new MemoryFs(this.clock);
    this.session = new Session({
      host: this.host,
      layout: linuxLayout,
      policy: { ...defaultPolicy, ...policy },
      clock: this.clock,
      addressOf: () => 0,
      ...(aside !== undefined && { aside }),
      uid: 0,
      gid: 0,
      request: this.#request,
      onBug: (error) => this.bugs.push(error),
    });
  }

  /** The unique number of the last request. */
  get lastUnique(): bigint {
    return this.#unique - 2n;
  }

  /** Sends raw bytes as they are. */
  raw(bytes: Uint8Array): Reply | undefined {
    this.#request.bytes.fill(0xee);
    this.#request.bytes.set(bytes);
    const length = this.session.handle(this.#request, bytes.length, this.#reply);
    return length === 0 ? undefined : this.#decode(length);
  }

  send(opcode: number, node: bigint | number, ...fields: Field[]): Reply | undefined {
    const body = encode(fields);
    const unique = this.#unique;
    this.#unique += 2n;
    const header = encode([40 + body.length, opcode, unique, BigInt(node), this.uid, this.gid, 4242, 0]);
    return this.raw(Buffer.concat([header, body]));
  }

  /** Sends what must be answered. */
  ask(opcode: number, node: bigint | number, ...fields: Field[]): Reply {
    const reply = this.send(opcode, node, ...fields);
    if (reply === undefined) throw new Error(`opcode ${opcode} got no reply`);
    if (reply.unique !== this.lastUnique) throw new Error('the reply is to another request');
    return reply;
  }

  /** Sends what must succeed. */
  ok(opcode: number, node: bigint | number, ...fields: Field[]): Buffer {
    const reply = this.ask(opcode, node, ...fields);
    if (reply.error !== 0) throw new Error(`opcode ${opcode}: error ${reply.error}`);
    return reply.body;
  }

  /** The error of what must fail, positive; 0 if it didn't. */
  error(opcode: number, node: bigint | number, ...fields: Field[]): number {
    return Math.abs(this.ask(opcode, node, ...fields).error);
  }

  init(flags = 0xffffffff, minor = 45): Buffer {
    return this.ok(26, 0, 7, minor, 131072, flags, 0xffffffff, new Uint8Array(44));
  }

  lookup(parent: bigint | number, name: string): Entry {
    return this.entry(this.ok(1, parent, name));
  }

  /** Makes and opens a file: its entry and handle. */
  create(parent: bigint | number, name: string, flags = 0o102, mode = 0o644): { entry: Entry; fh: bigint } {
    const body = this.ok(35, parent, flags, mode, 0, 0, name);
    return { entry: this.entry(body), fh: body.readBigUInt64LE(128) };
  }

  mkdir(parent: bigint | number, name: string, mode = 0o755): Entry {
    return this.entry(this.ok(9, parent, mode, 0, name));
  }

  open(node: bigint, flags = 2): bigint {
    return this.ok(14, node, flags, 0).readBigUInt64LE(0);
  }

  read(node: bigint, fh: bigint, offset: number, size: number): string {
    return this.ok(15, node, fh, BigInt(offset), size, 0, 0n, 0, 0).toString('latin1');
  }

  write(node: bigint, fh: bigint, offset: number, text: string): number {
    const data = Buffer.from(text, 'latin1');
    return this.ok(16, node, fh, BigInt(offset), data.length, 0, 0n, 0, 0, data).readUInt32LE(0);
  }

  release(node: bigint, fh: bigint): void {
    this.ok(18, node, fh, 0, 0, 0n);
  }

  forget(node: bigint, count: number): void {
    if (this.send(2, node, BigInt(count)) !== undefined) throw new Error('FORGET got a reply');
  }

  /** One READDIR or READDIRPLUS from a cookie on. */
  list(node: bigint | number, fh: bigint, cookie: bigint, size: number, plus = false): Dirent[] {
    const body = this.ok(plus ? 44 : 28, node, fh, cookie, size, 0, 0n, 0, 0);
    const list: Dirent[] = [];
    for (let at = 0; at < body.length; ) {
      const entry = plus ? this.entry(body.subarray(at)) : undefined;
      if (plus) at += 128;
      const length = body.readUInt32LE(at + 16);
      list.push({
        ino: body.readBigUInt64LE(at),
        cookie: body.readBigUInt64LE(at + 8),
        type: body.readUInt32LE(at + 20),
        name: body.toString('latin1', at + 24, at + 24 + length),
        ...(entry && { entry }),
      });
      at += (24 + length + 7) & ~7;
    }
    return list;
  }

  /** Answers to requests that waited and are due now. */
  poll(): Reply[] {
    const replies: Reply[] = [];
    this.session.poll(this.clock.now(), this.#reply, (length) => replies.push(this.#decode(length)));
    return replies;
  }

  entry(body: Buffer): Entry {
    return {
      node: body.readBigUInt64LE(0),
      generation: body.readBigUInt64LE(8),
      ino: body.readBigUInt64LE(40),
      size: body.readBigUInt64LE(48),
      mode: body.readUInt32LE(100),
      nlink: body.readUInt32LE(104),
      uid: body.readUInt32LE(108),
      gid: body.readUInt32LE(112),
    };
  }

  #decode(length: number): Reply {
    const bytes = Buffer.from(this.#reply.bytes.subarray(0, length));
    if (bytes.readUInt32LE(0) !== length) throw new Error('a reply tells a wrong length');
    return {
      error: bytes.readInt32LE(4),
      unique: bytes.readBigUInt64LE(8),
      body: bytes.subarray(16),
    };
  }
}
