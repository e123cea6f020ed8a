/**
 * A disk that remembers what was written to it in which order, and where it was told to flush: `node recording-disk.mjs FOLDER LOG BYTES`
 * serves one file, FOLDER/disk, until it is unmounted. A loop device over it makes of the file a disk for any file system.
 *
 * LOG has a record for each change: a kind (0 bytes, 1 zeroes, 2 a flush), the count of bytes, the position (64 bits), all little-endian;
 * then the bytes. Its size is the time at which something has happened.
 */
import { openSync, writevSync } from 'node:fs';
import { MemoryFs, serveFs, systemClock } from 'drydock/fsbridge';

const [folder, logPath, bytes] = process.argv.slice(2);
const READ_WRITE = 2;
const log = openSync(logPath, 'a');
const host = new MemoryFs(systemClock);
const disk = host.create(host.root, 'disk', READ_WRITE, 0o600);
host.truncate(disk, Number(bytes));

function note(kind, length, position, data = Buffer.alloc(0)) {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(kind, 0);
  head.writeUInt32LE(length, 4);
  head.writeBigUInt64LE(BigInt(position), 8);
  writevSync(log, [head, data]);
}

const write = host.write.bind(host);
host.write = (fd, from, at, size, position) => {
  note(0, size, position, from.bytes.subarray(at, at + size));
  return write(fd, from, at, size, position);
};
const allocate = host.allocate.bind(host);
host.allocate = (fd, mode, position, size) => {
  const done = allocate(fd, mode, position, size);
  if (done === 0) note(1, size, position);
  return done;
};
const sync = host.sync.bind(host);
host.sync = (fd) => {
  note(2, 0, 0);
  return sync(fd);
};

serveFs({ host, target: folder, name: 'recording-disk' });
