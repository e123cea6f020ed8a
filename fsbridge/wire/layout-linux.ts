/** The ABI of Linux, version 7.45. */
import type { InitReply, InitRequest, Layout, SetAttr } from './layout.ts';
import { IN_HEADER_BYTES, type Request } from './request.ts';
import * as S from './stat.ts';

/** Flags of INIT as bits of one 64-bit number: fuse_init_in.flags and flags2. */
export const ASYNC_READ: bigint = 1n << 0n;
export const POSIX_LOCKS: bigint = 1n << 1n;
export const ATOMIC_O_TRUNC: bigint = 1n << 3n;
export const BIG_WRITES: bigint = 1n << 5n;
export const FLOCK_LOCKS: bigint = 1n << 10n;
export const AUTO_INVAL_DATA: bigint = 1n << 12n;
export const DO_READDIRPLUS: bigint = 1n << 13n;
export const READDIRPLUS_AUTO: bigint = 1n << 14n;
export const ASYNC_DIO: bigint = 1n << 15n;
export const WRITEBACK_CACHE: bigint = 1n << 16n;
export const PARALLEL_DIROPS: bigint = 1n << 18n;
export const MAX_PAGES: bigint = 1n << 22n;
export const CACHE_SYMLINKS: bigint = 1n << 23n;
export const HANDLE_KILLPRIV_V2: bigint = 1n << 28n;
export const INIT_EXT: bigint = 1n << 30n;
export const PASSTHROUGH: bigint = 1n << 37n;

const INIT_IN_SHORT_BYTES = 16;
const INIT_IN_FLAGS2_WORD = (IN_HEADER_BYTES + 16) >> 2;

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
  out[at + 12] = stat[S.ATIME + 2]!;
  out[at + 13] = stat[S.MTIME + 2]!;
  out[at + 14] = stat[S.CTIME + 2]!;
  out[at + 15] = stat[S.MODE]! & 0xffff;
  out[at + 16] = stat[S.NLINK]!;
  out[at + 17] = stat[S.UID]!;
  out[at + 18] = stat[S.GID]!;
  out[at + 19] = S.encodeDevice(stat[S.RDEV_MAJOR]!, stat[S.RDEV_MINOR]!);
  out[at + 20] = stat[S.BLOCK_SIZE]!;
  out[at + 21] = 0;
}

/** struct fuse_setattr_in: valid, padding, fh, size, lock_owner, three times' seconds, three nanoseconds, mode, unused, uid, gid. */
function decodeSetAttr(request: Request, into: SetAttr): void {
  into.valid = request.u32(0);
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

function decodeInit(request: Request): InitRequest | undefined {
  if (request.length < IN_HEADER_BYTES + INIT_IN_SHORT_BYTES) return undefined;
  const low = BigInt(request.u32(12));
  const extended = (low & INIT_EXT) !== 0n && request.length >= (INIT_IN_FLAGS2_WORD + 1) << 2;
  const high = extended ? BigInt(request.words[INIT_IN_FLAGS2_WORD]!) : 0n;
  return {
    major: request.u32(0),
    minor: request.u32(4),
    maxReadaheadBytes: request.u32(8),
    flags: low | (high << 32n),
  };
}

/** struct fuse_init_out, 64 bytes. */
function encodeInit(reply: InitReply, out: Uint32Array, at: number): number {
  out.fill(0, at, at + 16);
  out[at] = 7;
  out[at + 1] = reply.minor;
  out[at + 2] = reply.maxReadaheadBytes;
  out[at + 3] = Number(reply.flags & 0xffffffffn);
  out[at + 4] = reply.maxBackground | (reply.congestionThreshold << 16);
  out[at + 5] = reply.maxWriteBytes;
  out[at + 6] = 1;
  out[at + 7] = reply.maxPages;
  out[at + 8] = Number(reply.flags >> 32n);
  out[at + 9] = reply.maxStackDepth;
  return 64;
}

export const linuxLayout: Layout = {
  minor: 45,
  attrBytes: 88,
  renameBytes: 8,
  setxattrBytes: 8,
  getxattrBytes: 8,
  negativeEntries: true,
  flags: (1n << 64n) - 1n,
  encodeAttr,
  decodeSetAttr,
  decodeInit,
  encodeInit,
  openFlags: (flags) => flags,
  xattrFlags: (flags) => flags,
  errno: (error) => error,
};
