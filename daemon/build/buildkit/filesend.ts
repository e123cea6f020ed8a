/**
 * Sends a folder to the client: moby.filesync.v1.FileSend/DiffCopy with fsutil's packets, the other way round than
 * `filesync.ts`. All files are described in order; the client asks for those that it wants by their number.
 */
import { type BigIntStats, lstatSync, readdirSync } from 'node:fs';
import { DrydockError } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import type { ByteString } from '#common/native/layer-fs';
import { fileData, headerOf } from '../../image/pack.ts';
import type { TarHeader } from '../../image/tar/header.ts';
import { GO_MODE } from './filesync.ts';
import type { GrpcCall } from './grpc.ts';
import { PACKET, Packet, type Stat } from './messages.ts';

const utf8 = (bytes: ByteString): string => Buffer.from(bytes, 'latin1').toString();

const TYPE_BITS: Record<TarHeader['type'], number> = {
  file: 0,
  link: 0,
  directory: GO_MODE.directory,
  symlink: GO_MODE.symlink,
  char: GO_MODE.device | GO_MODE.charDevice,
  block: GO_MODE.device,
  fifo: GO_MODE.fifo,
};

/** The description of a file, as Go has it. */
function statOf(path: string, stats: BigIntStats, header: TarHeader, linkname: string): Stat {
  const { mode } = header;
  // By addition: the bit of folders is the sign of a 32-bit number.
  const bits =
    TYPE_BITS[header.type] +
    (mode & 0o777) +
    (mode & 0o4000 ? GO_MODE.setuid : 0) +
    (mode & 0o2000 ? GO_MODE.setgid : 0) +
    (mode & 0o1000 ? GO_MODE.sticky : 0);
  return {
    path,
    mode: bits,
    uid: header.uid,
    gid: header.gid,
    size: header.type === 'file' ? header.size : 0,
    modTime: stats.mtimeNs,
    linkname,
    devmajor: header.major,
    devminor: header.minor,
    xattrs: new Map([...header.xattrs].map(([key, value]) => [utf8(key), value])),
  };
}

/** All below a folder, in fsutil's order: a folder before what is in it, names by their bytes. */
function* describe(
  root: ByteString,
  maps: UserMaps | undefined,
): Generator<{ source: ByteString; stat: Stat }> {
  const firstNames = new Map<bigint, string>();
  function* visit(folder: ByteString): Generator<{ source: ByteString; stat: Stat }> {
    const names = readdirSync(Buffer.from(root + folder, 'latin1'), { encoding: 'latin1' }).sort();
    for (const name of names) {
      const path = `${folder}/${name}`;
      const source = root + path;
      const stats = lstatSync(Buffer.from(source, 'latin1'), { bigint: true });
      const header = headerOf(source, path, stats, maps);
      if (!header) continue;
      const shown = utf8(path.slice(1));
      const first = stats.nlink > 1n && header.type === 'file' ? firstNames.get(stats.ino) : undefined;
      if (stats.nlink > 1n && header.type === 'file' && first === undefined) firstNames.set(stats.ino, shown);
      yield { source, stat: statOf(shown, stats, header, first ?? utf8(header.linkName)) };
      if (header.type === 'directory') yield* visit(path);
    }
  }
  yield* visit('');
}

/**
 * Sends a folder. @param maps how owners inside are those of the machine, when they are others
 * @throws ERR_SESSION when the client breaks off
 */
export async function sendFolder(call: GrpcCall, root: string, maps: UserMaps | undefined): Promise<void> {
  const sources: { source: ByteString; size: number }[] = [];
  const describing = (async (): Promise<void> => {
    for (const { source, stat } of describe(Buffer.from(root).toString('latin1'), maps)) {
      sources.push({ source, size: stat.size });
      await call.send(Packet.encode({ type: PACKET.stat, stat }));
    }
    await call.send(Packet.encode({ type: PACKET.stat }));
  })();
  // Whoever reads, hears of it: the loop below, or the caller.
  describing.catch(() => {});
  for await (const bytes of call.messages()) {
    const packet = Packet.decode(bytes);
    if (packet.type === PACKET.error)
      throw new DrydockError('ERR_SESSION', `error from receiver: ${Buffer.from(packet.data).toString()}`);
    if (packet.type === PACKET.request) await sendFile(call, packet.ID, sources[packet.ID]);
    else if (packet.type === PACKET.fin) {
      await describing;
      await call.send(Packet.encode({ type: PACKET.fin }));
      call.end();
    } else
      throw new DrydockError('ERR_SESSION', `the client sent a packet of the unknown type ${packet.type}`);
  }
  await describing;
}

async function sendFile(
  call: GrpcCall,
  id: number,
  file: { source: ByteString; size: number } | undefined,
): Promise<void> {
  if (!file) throw new DrydockError('ERR_SESSION', `the client asked for the file ${id}, which there is not`);
  for (const data of fileData(file.source, file.size))
    await call.send(Packet.encode({ type: PACKET.data, ID: id, data }));
  await call.send(Packet.encode({ type: PACKET.data, ID: id }));
}
