/**
 * The ABI of macFUSE and FUSE-T, version 7.19 (macFUSE's fuse_kernel.h). Errors on this wire are Darwin's numbers.
 */
import { toDarwin } from './errno-darwin.ts';
import type { InitReply, InitRequest, Layout, SetAttr } from './layout.ts';
import { IN_HEADER_BYTES, type Request } from './request.ts';
import * as S from './stat.ts';

/** fuse_attr has the time of creation, and flags before the block size. */
function encodeAttr(stat: S.Stat, out: Uint32Array, at: number): void {
  out[at] = stat[S.INO]!;
  out[at + 1] = stat[S.INO + 1]!;
  out[at + 2] = stat[S.SIZE]!;
  out[at + 3] = stat[S.SIZE + 1]!;
  out[at + 4] = stat[S.BLOCKS]!;
  out[at + 5] = stat[S.BLOCKS + 1]!;
  out[at + 6] = stat[S.ATIME]!;
  out[at + 7] = stat[S.ATIME + 1]!;
  out[at + 8] = stat[S.MTIME]!;
  out[at + 9] = stat[S.MTIME + 1]!;
  out[at + 10] = stat[S.CTIME]!;
  out[at + 11] = stat[S.CTIME + 1]!;
  out[at + 12] = stat[S.BTIME]!;
  out[at + 13] = stat[S.BTIME + 1]!;
  out[at + 14] = stat[S.ATIME + 2]!;
  out[at + 15] = stat[S.MTIME + 2]!;
  out[at + 16] = stat[S.CTIME + 2]!;
  out[at + 17] = stat[S.BTIME + 2]!;
  out[at + 18] = stat[S.MODE]! & 0xffff;
  out[at + 19] = stat[S.NLINK]!;
  out[at + 20] = stat[S.UID]!;
  out[at + 21] = stat[S.GID]!;
  // Darwin's makedev(): 8 bits of major above 24 of minor.
  out[at + 22] = ((stat[S.RDEV_MAJOR]! << 24) | (stat[S.RDEV_MINOR]! & 0xffffff)) >>> 0;
  out[at + 23] = 0;
  out[at + 24] = stat[S.BLOCK_SIZE]!;
  out[at + 25] = 0;
}

/** The fields that Linux has too are at the same places; the others (creation, backup, chflags) aren't carried. */
function decodeSetAttr(request: Request, into: SetAttr): void {
  into.valid = request.u32(0) & CARRIED;
  into.fh = request.u64(8);
  into.size = request.u64(16);
  into.atimeWord = (IN_HEADER_BYTES + 32) >> 2;
  into.mtimeWord = (IN_HEADER_BYTES + 40) >> 2;
  into.atimeNsWord = (IN_HEADER_BYTES + 56) >> 2;
  into.mtimeNsWord = (IN_HEADER_BYTES + 60) >> 2;
  into.mode = request.u32(68);
  into.uid = request.u32(76);
  into.gid = request.u32(80);
}

/** FATTR_MODE to FATTR_MTIME_NOW. */
const CARRIED = 0x1ff;

/** Bit 30 is VOL_RENAME here, and nothing follows the flags. */
function decodeInit(request: Request): InitRequest | undefined {
  return {
    major: request.u32(0),
    minor: request.u32(4),
    maxReadaheadBytes: request.u32(8),
    flags: BigInt(request.u32(12)),
  };
}

/** struct fuse_init_out, 24 bytes. */
function encodeInit(reply: InitReply, out: Uint32Array, at: number): number {
  out[at] = 7;
  out[at + 1] = reply.minor;
  out[at + 2] = reply.maxReadaheadBytes;
  out[at + 3] = Number(reply.flags & 0xffffffffn);
  out[at + 4] = reply.maxBackground | (reply.congestionThreshold << 16);
  out[at + 5] = reply.maxWriteBytes;
  return 24;
}

/** Pairs of Darwin's and Linux's numbers (sys/fcntl.h): O_APPEND, O_SYNC, O_TRUNC, O_EXCL. */
const OPEN_FLAGS = [
  [0x8, 0o2000],
  [0x80, 0o4010000],
  [0x400, 0o1000],
  [0x800, 0o200],
] as const;
const O_ACCMODE = 3;

function openFlags(flags: number): number {
  let result = flags & O_ACCMODE;
  for (const [darwin, linux] of OPEN_FLAGS) if ((flags & darwin) !== 0) result |= linux;
  return result;
}

const ASYNC_READ = 1n << 0n;
const ATOMIC_O_TRUNC = 1n << 3n;
const BIG_WRITES = 1n << 5n;

export const darwinLayout: Layout = {
  minor: 19,
  attrBytes: 104,
  // RENAME has flags only where RENAME_SWAP was agreed to, which we don't.
  renameBytes: 8,
  setxattrBytes: 16,
  getxattrBytes: 16,
  negativeEntries: false,
  flags: ASYNC_READ | ATOMIC_O_TRUNC | BIG_WRITES,
  encodeAttr,
  decodeSetAttr,
  decodeInit,
  encodeInit,
  openFlags,
  // XATTR_CREATE 2 and XATTR_REPLACE 4 are 1 and 2.
  xattrFlags: (flags) => (flags >> 1) & 3,
  errno: toDarwin,
};
