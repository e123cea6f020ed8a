/**
 * Serves a tree of files by 9P2000 over streams. Requests of a connection are answered one after the other, in their order,
 * so a flush finds nothing left to be flushed. What a connection had open is closed when it ends.
 */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { DrydockError } from '#common/errors';
import type { Log } from '#common/log';
import {
  emitNinep,
  emitStat,
  NINEP,
  NINEP_FOLDER,
  NINEP_HEADER_LEN,
  NINEP_IO_HEADER_LEN,
  type NinepRequest,
  parseNinep,
  type Qid,
} from '../wire/ninep.ts';
import { fileError, type OpenFile, type TreeFolder, type TreeNode } from './file-tree.ts';
import { listenUnix } from './forwarder.ts';

/** Largest message, and the smallest that a client may insist on. */
const MESSAGE_BYTES_MAX = 65_536;
const MESSAGE_BYTES_MIN = 256;
/** Files that a connection may know at once. */
export const NINEP_FIDS_MAX = 4096;
/** Connections to one server. */
export const NINEP_CONNECTIONS_MAX = 64;
/** Open modes (open(5)): the low two bits are read, write, both, execute. */
const MODE_MASK = 3;
const MODE_WRITE = 1;
const MODE_BOTH = 2;

/** What one connection sees, and what is to be done when it has ended. */
export interface TreeSession {
  readonly root: TreeFolder;
  end?(): Promise<void>;
}

/** Where a fid is, from the root down, and what it has open. */
interface Fid {
  readonly path: readonly TreeNode[];
  open: OpenFile | undefined;
  /** A folder's entries, or a file's content, as of the read that began at its start. */
  content: Uint8Array | undefined;
  isOpen: boolean;
}

/** Serves at a unix socket of its owner's. @returns ends it. @throws DrydockError as listenUnix() does */
export async function serveNinep(
  path: string,
  connect: () => TreeSession,
  log: Log,
): Promise<() => Promise<void>> {
  const sessions = new Map<Socket, Promise<void>>();
  const server = createServer((socket) => {
    const session = connect();
    const served = new NinepConnection(socket, session, Math.floor(Date.now() / 1000))
      .serve()
      .catch((error: unknown) => log.warn({ err: error }, 'a 9P connection failed'))
      .finally(() => {
        socket.destroy();
        sessions.delete(socket);
      });
    sessions.set(socket, served);
  });
  server.maxConnections = NINEP_CONNECTIONS_MAX;
  await listenUnix(server, path);
  return async () => {
    server.close();
    for (const socket of sessions.keys()) socket.destroy();
    await Promise.all(sessions.values());
  };
}

/** One client. */
export class NinepConnection {
  readonly #socket: Socket;
  readonly #session: TreeSession;
  readonly #startedAt: number;
  readonly #fids = new Map<number, Fid>();
  readonly #numbers = new WeakMap<TreeNode, number>();
  #nextNumber = 1;
  #bytesMax = MESSAGE_BYTES_MAX;

  /** @param startedAt seconds since 1970, shown as the files' time */
  constructor(socket: Socket, session: TreeSession, startedAt: number) {
    this.#socket = socket;
    this.#session = session;
    this.#startedAt = startedAt;
  }

  /** Serves until the client has gone. */
  async serve(): Promise<void> {
    this.#socket.on('error', () => this.#socket.destroy());
    try {
      let held: Buffer = Buffer.alloc(0);
      for await (const chunk of this.#socket as AsyncIterable<Buffer>) {
        held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
        for (;;) {
          if (held.length < 4) break;
          const size = held.readUInt32LE();
          // Nobody can say where the next message begins.
          if (size < NINEP_HEADER_LEN || size > this.#bytesMax) return;
          if (held.length < size) break;
          await this.#answer(held, size);
          held = held.subarray(size);
        }
      }
    } catch (error) {
      // A client that is cut off is one that has gone.
      if (!this.#socket.destroyed) throw error;
    } finally {
      await this.#reset();
      await this.#session.end?.();
    }
  }

  async #answer(message: Uint8Array, size: number): Promise<void> {
    const request = parseNinep(message, 0, size);
    const tag = request?.tag ?? message[5]! | (message[6]! << 8);
    let reply: Uint8Array;
    try {
      if (!request) throw fileError('malformed message');
      reply = await this.#perform(request);
    } catch (error) {
      if (!(error instanceof DrydockError)) throw error;
      reply = emitNinep(NINEP.error, tag, error.message);
    }
    if (!this.#socket.write(reply) && !this.#socket.destroyed) await once(this.#socket, 'drain');
  }

  async #perform(request: NinepRequest): Promise<Uint8Array> {
    const { type, tag } = request;
    switch (type) {
      case NINEP.version:
        return this.#version(request);
      case NINEP.attach: {
        const root: Fid = { path: [this.#session.root], open: undefined, content: undefined, isOpen: false };
        this.#put(request.fid, root);
        return emitNinep(type + 1, tag, this.#qid(root));
      }
      case NINEP.flush:
        return emitNinep(type + 1, tag);
      case NINEP.walk:
        return this.#walk(request);
      case NINEP.open:
        return emitNinep(type + 1, tag, this.#open(request), [0, 4]);
      case NINEP.create:
        return emitNinep(type + 1, tag, this.#create(request), [0, 4]);
      case NINEP.read: {
        const data = await this.#read(request);
        return emitNinep(type + 1, tag, [data.length, 4], data);
      }
      case NINEP.write:
        return emitNinep(type + 1, tag, [await this.#write(request), 4]);
      case NINEP.clunk:
        await this.#clunk(request.fid);
        return emitNinep(type + 1, tag);
      case NINEP.remove:
        await this.#remove(request.fid);
        return emitNinep(type + 1, tag);
      case NINEP.stat: {
        const stat = this.#stat(this.#fid(request.fid).path.at(-1)!);
        return emitNinep(type + 1, tag, [stat.length, 2], stat);
      }
      case NINEP.auth:
        throw fileError('authentication not required');
      case NINEP.wstat:
        this.#fid(request.fid);
        throw fileError('permission denied');
      default:
        throw fileError('unknown message');
    }
  }

  /** version(5): begins anew; extensions of 9P2000 are answered by what all know. */
  async #version({ name, sizeMax, type, tag }: NinepRequest): Promise<Uint8Array> {
    if (sizeMax < MESSAGE_BYTES_MIN) throw fileError('message size too small');
    await this.#reset();
    this.#bytesMax = Math.min(sizeMax, MESSAGE_BYTES_MAX);
    return emitNinep(type + 1, tag, [this.#bytesMax, 4], /^9P2000\b/.test(name) ? '9P2000' : 'unknown');
  }

  async #reset(): Promise<void> {
    for (const fid of [...this.#fids.keys()]) await this.#clunk(fid);
  }

  #put(number: number, fid: Fid): void {
    if (this.#fids.has(number)) throw fileError('fid already in use');
    if (this.#fids.size >= NINEP_FIDS_MAX) throw fileError('too many open files');
    this.#fids.set(number, fid);
  }

  #fid(number: number): Fid {
    const fid = this.#fids.get(number);
    if (!fid) throw fileError('fid not found');
    return fid;
  }

  #qid({ path }: Pick<Fid, 'path'>): Qid {
    const node = path.at(-1)!;
    let number = this.#numbers.get(node);
    if (number === undefined) {
      number = this.#nextNumber++;
      this.#numbers.set(node, number);
    }
    return { isFolder: node.kind === 'folder', path: number };
  }

  /** walk(5): as far as names are found; the new fid is only made when all are, and the first that is not is an error. */
  #walk({ fid, newFid, names, type, tag }: NinepRequest): Uint8Array {
    const from = this.#fid(fid);
    if (from.isOpen) throw fileError('file is open');
    let { path } = from;
    const qids: Qid[] = [];
    for (const name of names) {
      const node = path.at(-1)!;
      const next = node.kind === 'folder' ? node.entries().find((entry) => entry.name === name) : undefined;
      if (name === '..') path = path.length > 1 ? path.slice(0, -1) : path;
      else if (next) path = [...path, next];
      else if (qids.length === 0) throw fileError('file not found');
      else break;
      qids.push(this.#qid({ path }));
    }
    if (qids.length === names.length) {
      if (newFid === fid) this.#fids.delete(fid);
      this.#put(newFid, { path, open: undefined, content: undefined, isOpen: false });
    }
    return emitNinep(type + 1, tag, [qids.length, 2], ...qids);
  }

  #open({ fid: number, mode }: NinepRequest): Qid {
    const fid = this.#fid(number);
    if (fid.isOpen) throw fileError('file is open');
    const node = fid.path.at(-1)!;
    const access = mode & MODE_MASK;
    const writes = access === MODE_WRITE || access === MODE_BOTH;
    if (writes && (node.kind === 'folder' || !node.isWritable)) throw fileError('permission denied');
    if (node.kind === 'file') fid.open = node.open();
    fid.isOpen = true;
    return this.#qid(fid);
  }

  /** Only folders can be made, in folders that want them; the fid becomes the new one's, open. */
  #create({ fid: number, name, perm }: NinepRequest): Qid {
    const fid = this.#fid(number);
    const node = fid.path.at(-1)!;
    if (node.kind !== 'folder' || !node.makeFolder || (perm & NINEP_FOLDER) === 0)
      throw fileError('permission denied');
    if (fid.isOpen) throw fileError('file is open');
    const made = {
      path: [...fid.path, node.makeFolder(name)],
      open: undefined,
      content: undefined,
      isOpen: true,
    };
    this.#fids.set(number, made);
    return this.#qid(made);
  }

  async #read({ fid: number, offset, count }: NinepRequest): Promise<Uint8Array> {
    const fid = this.#fid(number);
    if (!fid.isOpen) throw fileError('file is not open');
    const node = fid.path.at(-1)!;
    const most = Math.min(count, this.#bytesMax - NINEP_IO_HEADER_LEN);
    if (node.kind === 'file') {
      if (offset === 0 || !fid.content) fid.content = await fid.open!.read();
      return fid.content.subarray(offset, offset + most);
    }
    if (offset === 0 || !fid.content) fid.content = this.#listing(node);
    return wholeEntries(fid.content, offset, most);
  }

  async #write({ fid: number, data }: NinepRequest): Promise<number> {
    const fid = this.#fid(number);
    if (!fid.open?.write) throw fileError('permission denied');
    await fid.open.write(data);
    // What is read next is the answer to it.
    fid.content = undefined;
    return data.length;
  }

  async #clunk(number: number): Promise<void> {
    const { open } = this.#fid(number);
    this.#fids.delete(number);
    await open?.close?.();
  }

  /** remove(5): the fid is gone, also when the file cannot be removed. */
  async #remove(number: number): Promise<void> {
    const node = this.#fid(number).path.at(-1)!;
    await this.#clunk(number);
    if (!node.remove) throw fileError('permission denied');
    await node.remove();
  }

  #listing(node: TreeFolder): Uint8Array {
    return Buffer.concat(node.entries().map((entry) => this.#stat(entry)));
  }

  #stat(node: TreeNode): Uint8Array {
    const isFolder = node.kind === 'folder';
    const canWrite = isFolder ? node.makeFolder !== undefined : node.isWritable;
    return emitStat({
      qid: this.#qid({ path: [node] }),
      // Who may connect may do it all, whoever the client says he is.
      perm: (isFolder ? NINEP_FOLDER + 0o555 : 0o444) + (canWrite ? 0o222 : 0),
      mtime: this.#startedAt,
      // As other servers of files that are made as they are read.
      length: 0,
      name: node.name,
      owner: 'drydock',
    });
  }
}

/** The entries from `offset` on, which is the end of one read before, that fit whole into `most` bytes (read(5)). */
function wholeEntries(entries: Uint8Array, offset: number, most: number): Uint8Array {
  let at = 0;
  while (at < offset && at < entries.length) at += 2 + (entries[at]! | (entries[at + 1]! << 8));
  if (at !== offset && offset < entries.length) throw fileError('bad offset in folder read');
  let end = at;
  while (end < entries.length) {
    const next = end + 2 + (entries[end]! | (entries[end + 1]! << 8));
    if (next - at > most) break;
    end = next;
  }
  return entries.subarray(at, end);
}
