/** A client of 9P2000 for tests, written from the manual (section 5) and not from the server's code. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Size of messages that it asks for. */
const MESSAGE_BYTES = 8192;

function number(value: number | bigint, bytes: number): Buffer {
  const field = Buffer.alloc(bytes);
  for (let i = 0, left = BigInt(value); i < bytes; i++, left >>= 8n) field[i] = Number(left & 0xffn);
  return field;
}
function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([number(bytes.length, 2), bytes]);
}

/** An answer: its type, and what is behind its tag. */
export interface Reply {
  type: number;
  body: Buffer;
}

export class NinepClient {
  readonly socket: Socket;
  #held = Buffer.alloc(0);
  #nextFid = 1;

  private constructor(socket: Socket) {
    this.socket = socket;
  }

  /** Connects, agrees on a version, and attaches to the root as fid 0. */
  static async attach(path: string, version = '9P2000'): Promise<NinepClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    const client = new NinepClient(socket);
    await client.ask(100, number(MESSAGE_BYTES, 4), text(version));
    await client.ask(104, number(0, 4), number(0xffffffff, 4), text('user'), text(''));
    return client;
  }

  /** Sends a message as it is and reads the answer. */
  async exchange(message: Uint8Array): Promise<Reply> {
    this.socket.write(message);
    for (;;) {
      if (this.#held.length >= 4 && this.#held.length >= this.#held.readUInt32LE()) break;
      const chunk = this.socket.read() as Buffer | null;
      if (chunk) this.#held = Buffer.concat([this.#held, chunk]);
      else await once(this.socket, 'readable');
    }
    const size = this.#held.readUInt32LE();
    const reply = { type: this.#held[4]!, body: Buffer.from(this.#held.subarray(7, size)) };
    this.#held = this.#held.subarray(size);
    return reply;
  }

  /** Sends a request. @throws Error with the server's words */
  async ask(type: number, ...fields: Buffer[]): Promise<Buffer> {
    const body = Buffer.concat(fields);
    const reply = await this.exchange(
      Buffer.concat([number(7 + body.length, 4), number(type, 1), number(1, 2), body]),
    );
    if (reply.type === 107) throw new Error(reply.body.toString('utf8', 2));
    if (reply.type !== type + 1) throw new Error(`type ${reply.type} answers ${type}`);
    return reply.body;
  }

  /** A new fid at a path below the root. */
  async walk(...names: string[]): Promise<number> {
    const fid = this.#nextFid++;
    const body = await this.ask(
      110,
      number(0, 4),
      number(fid, 4),
      number(names.length, 2),
      ...names.map(text),
    );
    if (body.readUInt16LE() !== names.length) throw new Error('file not found');
    return fid;
  }

  async open(mode: number, ...names: string[]): Promise<number> {
    const fid = await this.walk(...names);
    await this.ask(112, number(fid, 4), number(mode, 1));
    return fid;
  }

  async makeFolder(name: string): Promise<void> {
    const fid = await this.walk();
    await this.ask(114, number(fid, 4), text(name), number(0x800001ed, 4), number(0, 1));
    await this.clunk(fid);
  }

  async write(fid: number, data: string): Promise<void> {
    await this.ask(118, number(fid, 4), number(0, 8), number(data.length, 4), Buffer.from(data));
  }

  async clunk(fid: number): Promise<void> {
    await this.ask(120, number(fid, 4));
  }

  async remove(...names: string[]): Promise<void> {
    const fid = await this.walk(...names);
    await this.ask(122, number(fid, 4));
  }

  /** Everything from an open fid, `count` bytes at a time. */
  async readAll(fid: number, count: number = MESSAGE_BYTES - 24): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let offset = 0; ; ) {
      const body = await this.ask(116, number(fid, 4), number(offset, 8), number(count, 4));
      const data = body.subarray(4, 4 + body.readUInt32LE());
      if (data.length === 0) return Buffer.concat(parts);
      parts.push(data);
      offset += data.length;
    }
  }

  async readFile(...names: string[]): Promise<Buffer> {
    const fid = await this.open(0, ...names);
    const content = await this.readAll(fid);
    await this.clunk(fid);
    return content;
  }

  /** Names in a folder, those of folders with a slash behind them. */
  async list(...names: string[]): Promise<string[]> {
    const fid = await this.open(0, ...names);
    const data = await this.readAll(fid, 100);
    await this.clunk(fid);
    const found: string[] = [];
    for (let at = 0; at < data.length; at += 2 + data.readUInt16LE(at)) {
      const isFolder = (data.readUInt32LE(at + 21) & 0x80000000) !== 0;
      const length = data.readUInt16LE(at + 41);
      found.push(data.toString('utf8', at + 43, at + 43 + length) + (isFolder ? '/' : ''));
    }
    return found;
  }

  close(): void {
    this.socket.destroy();
  }
}
