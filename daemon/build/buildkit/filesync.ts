/**
 * Fetches a folder of the client: moby.filesync.v1.FileSync/DiffCopy with fsutil's packets. The client describes all
 * files in order; those that are wanted are asked for by their number, and come in pieces, several at a time.
 *
 * What comes is laid out as a tar archive in a spool file (sizes are known before data is asked for, so every piece has
 * its place), and then unpacked as every other archive of a stranger: nothing here writes by a name that came from the client.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { DrydockError } from '#common/errors';
import { LAYER_BYTES_MAX } from '../../image/extract.ts';
import { type EntryType, emitHeader, makeHeader, padding, trailer } from '../../image/tar/header.ts';
import { PACKET, Packet, type Stat } from './messages.ts';
import type { Session } from './sessions.ts';

/** Files that are asked for at a time: enough to hide the round trip, few enough for the client's descriptors. */
const REQUESTS_MAX = 64;
const ENTRIES_MAX = 1_000_000;
const PATH = '/moby.filesync.v1.FileSync/DiffCopy';

/** os.FileMode of Go. */
export const GO_MODE: Record<
  | 'directory'
  | 'symlink'
  | 'device'
  | 'fifo'
  | 'socket'
  | 'setuid'
  | 'setgid'
  | 'charDevice'
  | 'sticky'
  | 'irregular',
  number
> = {
  directory: 2 ** 31,
  symlink: 1 << 27,
  device: 1 << 26,
  fifo: 1 << 25,
  socket: 1 << 24,
  setuid: 1 << 23,
  setgid: 1 << 22,
  charDevice: 1 << 21,
  sticky: 1 << 20,
  irregular: 1 << 19,
};

/** What of a folder is wanted. */
export interface FolderRequest {
  /** The client's name for it: `context`, `dockerfile`. */
  name: string;
  /** Patterns of what stays out, as in .dockerignore. */
  excludes?: string[];
  /** Only these, and what they lead to by symlinks. */
  followPaths?: string[];
}

function bad(reason: string): DrydockError {
  return new DrydockError('ERR_SESSION', `the client sent ${reason}`);
}

/** The kind of a file by Go's mode; undefined for what no archive holds. */
function kindOf(mode: number): EntryType | undefined {
  if (mode >= GO_MODE.directory) return 'directory';
  if (mode & GO_MODE.symlink) return 'symlink';
  if (mode & GO_MODE.device) return mode & GO_MODE.charDevice ? 'char' : 'block';
  if (mode & GO_MODE.fifo) return 'fifo';
  return mode & (GO_MODE.socket | GO_MODE.irregular) ? undefined : 'file';
}

function permissionsOf(mode: number): number {
  const special =
    (mode & GO_MODE.setuid ? 0o4000 : 0) |
    (mode & GO_MODE.setgid ? 0o2000 : 0) |
    (mode & GO_MODE.sticky ? 0o1000 : 0);
  return (mode & 0o777) | special;
}

/** fsutil's order: by parts of the path, a folder before what is in it. */
function isAfter(path: string, before: string): boolean {
  const a = path.split('/');
  const b = before.split('/');
  for (let i = 0; i < Math.min(a.length, b.length); i++)
    if (a[i] !== b[i]) return Buffer.compare(Buffer.from(a[i]!), Buffer.from(b[i]!)) > 0;
  return a.length > b.length;
}

/** A file whose data is still to come: where it goes, and how much is there. */
interface Wanted {
  path: string;
  offset: number;
  size: number;
  have: number;
}

/** Where everything goes in the archive. No input or output: it is told of packets, and says what to write where. */
export class ArchiveLayout {
  readonly #folders = new Set<string>();
  readonly #files = new Set<string>();
  readonly #wanted = new Map<number, Wanted>();
  #last = '';
  #entries = 0;
  #position = 0;

  /** The size of what was described. */
  get length(): number {
    return this.#position;
  }

  /** The numbers of files whose data is not complete, in order. */
  pending(): number[] {
    return [...this.#wanted.keys()];
  }

  /** A file was described. Returns its header and its place; undefined for what is left out. @throws ERR_SESSION */
  describe(stat: Stat): { header: Buffer; offset: number } | undefined {
    const id = this.#entries++;
    const { path } = stat;
    if (id >= ENTRIES_MAX) throw bad(`more than ${ENTRIES_MAX} files`);
    const parts = path.split('/');
    if (parts.some((part) => part === '' || part === '.' || part === '..') || path.includes('\0'))
      throw bad(`the path ${JSON.stringify(path)}, which is none inside of a folder`);
    if (this.#last !== '' && !isAfter(path, this.#last))
      throw bad(`${JSON.stringify(path)} after ${JSON.stringify(this.#last)}, which is out of order`);
    const parent = parts.slice(0, -1).join('/');
    if (parent !== '' && !this.#folders.has(parent))
      throw bad(`${JSON.stringify(path)}, whose folder it did not describe`);
    this.#last = path;
    const kind = kindOf(stat.mode);
    if (kind === undefined) return undefined;
    if (kind === 'directory') this.#folders.add(path);
    const isLink = kind === 'file' && stat.linkname !== '';
    if (isLink && !this.#files.has(stat.linkname))
      throw bad(
        `${JSON.stringify(path)}, a link to ${JSON.stringify(stat.linkname)}, which it did not describe`,
      );
    if (kind === 'file') this.#files.add(path);
    const size = kind === 'file' && !isLink ? stat.size : 0;
    if (!(Number.isSafeInteger(size) && size >= 0)) throw bad(`a size of ${size} bytes`);
    const header = headerOf(stat, isLink ? 'link' : kind, size);
    const offset = this.#position;
    const dataOffset = offset + header.length;
    if (size > 0) this.#wanted.set(id, { path, offset: dataOffset, size, have: 0 });
    this.#position = dataOffset + size + padding(size).length;
    if (this.#position > LAYER_BYTES_MAX) throw bad(`more than ${LAYER_BYTES_MAX} bytes`);
    return { header, offset };
  }

  /** Data of a file came. Returns where to write how much of it: a file that has grown since is cut. @throws ERR_SESSION */
  data(id: number, length: number): { offset: number; length: number } {
    const file = this.#wanted.get(id);
    if (!file) throw bad(`data for the file ${id}, which was not asked for`);
    const place = { offset: file.offset + file.have, length: Math.min(length, file.size - file.have) };
    file.have += place.length;
    return place;
  }

  /** A file is complete. @throws ERR_SESSION when it is shorter than it was described */
  complete(id: number): void {
    const file = this.#wanted.get(id);
    if (!file) throw bad(`the end of the file ${id}, which was not asked for`);
    if (file.have < file.size)
      throw bad(
        `${file.have} bytes of ${JSON.stringify(file.path)}, which had ${file.size}: it was changed meanwhile`,
      );
    this.#wanted.delete(id);
  }
}

function headerOf(stat: Stat, type: EntryType, size: number): Buffer {
  const latin1 = (text: string): string => Buffer.from(text).toString('latin1');
  const seconds = stat.modTime / 1_000_000_000n - (stat.modTime % 1_000_000_000n < 0n ? 1n : 0n);
  const capability = stat.xattrs.get('security.capability');
  return emitHeader(
    makeHeader({
      name: latin1(stat.path),
      type,
      mode: permissionsOf(stat.mode),
      uid: stat.uid,
      gid: stat.gid,
      size,
      mtimeSeconds: Number(seconds),
      mtimeNanoseconds: Number(stat.modTime - seconds * 1_000_000_000n),
      linkName: type === 'link' || type === 'symlink' ? latin1(stat.linkname) : '',
      major: stat.devmajor,
      minor: stat.devminor,
      // The only attribute that docker's archives of contexts carry.
      xattrs: new Map(capability ? [['security.capability', capability]] : []),
    }),
  );
}

/** Header values of the request; what is not ASCII is escaped, as BuildKit does. */
function metadataOf({ name, excludes, followPaths }: FolderRequest): Record<string, string[]> {
  const metadata: Record<string, string[]> = {};
  const set = (key: string, values: string[] | undefined): void => {
    if (values === undefined || values.length === 0) return;
    const isPlain = values.every((value) => /^[\x20-\x7e]*$/.test(value));
    metadata[key] = isPlain ? values : values.map((value) => encodeURIComponent(value));
    if (!isPlain) metadata[`${key}-encoded`] = ['1'];
  };
  set('dir-name', [name]);
  set('exclude-patterns', excludes);
  set('followpaths', followPaths);
  return metadata;
}

/** Told how many bytes of files have come. */
export type Received = (bytes: number) => void;

/** Fetches a folder into an archive at `spoolPath`. @throws ERR_SESSION */
export async function fetchFolder(
  { client, methods }: Session,
  request: FolderRequest,
  spoolPath: string,
  signal: AbortSignal,
  received: Received,
): Promise<void> {
  if (!methods.has(PATH.toLowerCase()))
    throw new DrydockError('ERR_SESSION', 'the client offers no files: build from a local folder');
  const spool = await open(spoolPath, 'wx', 0o600);
  const call = client.call(PATH, metadataOf(request), signal);
  try {
    await receive(call, spool, received);
  } finally {
    call.cancel();
    await spool.close();
  }
}

async function receive(
  call: ReturnType<Session['client']['call']>,
  spool: FileHandle,
  received: Received,
): Promise<void> {
  const layout = new ArchiveLayout();
  let bytesOfFiles = 0;
  let toAsk: number[] = [];
  let open = 0;
  const ask = async (): Promise<void> => {
    while (open < REQUESTS_MAX && toAsk.length > 0) {
      open++;
      await call.send(Packet.encode({ type: PACKET.request, ID: toAsk.shift()! }));
    }
    if (open === 0) await call.send(Packet.encode({ type: PACKET.fin }));
  };
  for await (const bytes of call.messages()) {
    const packet = Packet.decode(bytes);
    if (packet.type === PACKET.error)
      throw new DrydockError('ERR_SESSION', `error from sender: ${Buffer.from(packet.data).toString()}`);
    if (packet.type === PACKET.fin) call.end();
    else if (packet.type === PACKET.stat && packet.stat) {
      const place = layout.describe(packet.stat);
      if (place) await spool.write(place.header, 0, place.header.length, place.offset);
    } else if (packet.type === PACKET.stat) {
      const end = trailer();
      await spool.write(end, 0, end.length, layout.length);
      toAsk = layout.pending();
      await ask();
    } else if (packet.type === PACKET.data && packet.data.length > 0) {
      const { offset, length } = layout.data(packet.ID, packet.data.length);
      await spool.write(packet.data, 0, length, offset);
      bytesOfFiles += length;
      received(bytesOfFiles);
    } else if (packet.type === PACKET.data) {
      layout.complete(packet.ID);
      open--;
      await ask();
    } else throw bad(`a packet of the unknown type ${packet.type}`);
  }
  if (layout.pending().length > 0) throw bad('an end before all files were complete');
}
