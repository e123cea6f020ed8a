// Plays FUSE-T's helper: speaks the 7.19 ABI of macFUSE on descriptor 3, in pieces cut at random, and obeys `mount` and
// `unmount` on descriptor 4. What it saw goes as JSON to the file FAKE_REPORT. FAKE_STATUS is its answer to `mount`.
import { writeFileSync } from 'node:fs';
import { Socket } from 'node:net';

const { _FUSE_COMMFD, _FUSE_MONFD, FAKE_REPORT, FAKE_STATUS = '0', FAKE_SEED = '1' } = process.env;
const comm = new Socket({ fd: Number(_FUSE_COMMFD) });
const monitor = new Socket({ fd: Number(_FUSE_MONFD) });

let seed = Number(FAKE_SEED);
const random = (n) => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return (seed >>> 8) % n;
};

const fields = (...list) =>
  Buffer.concat(
    list.map((field) => {
      if (typeof field === 'string') return Buffer.from(`${field}\0`);
      if (typeof field === 'number') {
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32LE(field);
        return bytes;
      }
      if (typeof field === 'bigint') {
        const bytes = Buffer.alloc(8);
        bytes.writeBigUInt64LE(field);
        return bytes;
      }
      return field;
    }),
  );

let unique = 1n;
let received = Buffer.alloc(0);
const waiting = [];
comm.on('data', (chunk) => {
  received = Buffer.concat([received, chunk]);
  while (received.length >= 16 && received.length >= received.readUInt32LE(0)) {
    const reply = received.subarray(0, received.readUInt32LE(0));
    received = received.subarray(reply.length);
    waiting.shift()({
      error: reply.readInt32LE(4),
      unique: reply.readBigUInt64LE(8),
      body: reply.subarray(16),
    });
  }
});

const send = async (bytes) => {
  for (let at = 0; at < bytes.length; ) {
    const count = 1 + random(bytes.length - at);
    comm.write(bytes.subarray(at, at + count));
    at += count;
    if (random(3) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
};

const ask = async (opcode, node, ...list) => {
  const body = fields(...list);
  const number = unique++;
  // The answer may come while the last piece is still being sent.
  const answer = new Promise((resolve) => waiting.push(resolve));
  await send(fields(40 + body.length, opcode, number, BigInt(node), 501, 20, 99, 0, body));
  const reply = await answer;
  if (reply.unique !== number) throw new Error('a reply to another request');
  return reply;
};

const entry = (body) => ({
  node: Number(body.readBigUInt64LE(0)),
  size: Number(body.readBigUInt64LE(40 + 8)),
  born: Number(body.readBigUInt64LE(40 + 48)),
  mode: body.readUInt32LE(40 + 72),
  nlink: body.readUInt32LE(40 + 76),
  uid: body.readUInt32LE(40 + 80),
  blksize: body.readUInt32LE(40 + 96),
  bytes: body.length,
});

async function play() {
  const seen = { args: process.argv.slice(2), env: { vers: process.env._FUSE_COMMVERS } };
  // VOL_RENAME is bit 30 here: nothing may be read behind the flags.
  const init = await ask(26, 0, 7, 19, 65536, 0x7fffffff);
  seen.init = {
    error: init.error,
    bytes: init.body.length,
    minor: init.body.readUInt32LE(4),
    flags: init.body.readUInt32LE(12),
  };
  seen.missing = (await ask(1, 1, 'missing')).error;
  seen.tooLong = (await ask(1, 1, 'n'.repeat(256))).error;
  // O_CREAT | O_EXCL | O_RDWR as Darwin has them.
  const made = await ask(35, 1, 0xa02, 0o644, 0, 0, 'file');
  seen.created = entry(made.body.subarray(0, 144));
  const fh = made.body.readBigUInt64LE(144);
  const data = Buffer.alloc(100_000, 'fuse-t ');
  const written = await ask(16, seen.created.node, fh, 0n, data.length, 0, 0n, 0, 0, data);
  seen.written = written.body.readUInt32LE(0);
  const read = await ask(15, seen.created.node, fh, 50_000n, 70_000, 0, 0n, 0, 0);
  seen.read = read.body.equals(data.subarray(50_000));
  // O_APPEND is 8 on Darwin.
  const append = (await ask(14, seen.created.node, 9, 0)).body.readBigUInt64LE(0);
  await ask(16, seen.created.node, append, 0n, 3, 0, 0n, 0, 0, Buffer.from('end'));
  seen.appended = entry((await ask(1, 1, 'file')).body).size;
  // struct fuse_setattr_in is longer here; valid has FATTR_FLAGS (1 << 31) and mode.
  const setattr = await ask(
    4,
    seen.created.node,
    0x80000001,
    0,
    0n,
    0n,
    0n,
    0n,
    0n,
    0n,
    0,
    0,
    0,
    0o600,
    0,
    0,
    0,
    0,
    0n,
    0n,
    0n,
    0,
    0,
    0,
    0x8000,
  );
  seen.chmod = { error: setattr.error, bytes: setattr.body.length, mode: setattr.body.readUInt32LE(16 + 72) };
  seen.setxattr = (await ask(21, seen.created.node, 5, 2, 0, 0, 'user.x', Buffer.from('value'))).error;
  seen.setAgain = (await ask(21, seen.created.node, 5, 2, 0, 0, 'user.x', Buffer.from('value'))).error;
  seen.getxattr = (await ask(22, seen.created.node, 100, 0, 0, 0, 'user.x')).body.toString();
  seen.noxattr = (await ask(22, seen.created.node, 100, 0, 0, 0, 'com.apple.FinderInfo')).error;
  await ask(9, 1, 0o755, 0, 'dir');
  seen.renamed = (await ask(12, 1, 1n, 'file', 'renamed')).error;
  seen.notEmpty = (await ask(11, 1, 'renamed')).error;
  const dir = (await ask(27, 1, 0, 0)).body.readBigUInt64LE(0);
  const list = (await ask(28, 1, dir, 0n, 4096, 0, 0n, 0, 0)).body;
  seen.names = [];
  for (let at = 0; at < list.length; at += (24 + list.readUInt32LE(at + 16) + 7) & ~7)
    seen.names.push(list.toString('utf8', at + 24, at + 24 + list.readUInt32LE(at + 16)));
  seen.unknown = (await ask(61, 1, 'volume')).error;
  return seen;
}

monitor.on('data', async (chunk) => {
  const text = chunk.toString();
  if (text.startsWith('mount')) {
    const seen = await play().catch((error) => ({ failed: String(error) }));
    writeFileSync(FAKE_REPORT, JSON.stringify(seen));
    const status = Buffer.alloc(4);
    status.writeInt32LE(Number(FAKE_STATUS));
    monitor.write(status.subarray(0, 1));
    setImmediate(() => monitor.write(status.subarray(1)));
  }
  if (text.includes('unmount')) process.exit(0);
});
