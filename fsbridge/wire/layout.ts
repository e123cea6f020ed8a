/**
 * Where two FUSE ABIs differ: Linux's (7.45) and that of macFUSE and FUSE-T (7.19). Operations know the fields that
 * both share; everything else goes through a Layout, one file per ABI, so that no operation asks which it serves.
 * Source: include/uapi/linux/fuse.h and macFUSE's fuse_kernel.h.
 */
import type { Request } from './request.ts';
import type { Stat } from './stat.ts';

/** What the kernel offers when a session starts. */
export interface InitRequest {
  major: number;
  minor: number;
  maxReadaheadBytes: number;
  flags: bigint;
}

/** What we answer. */
export interface InitReply {
  minor: number;
  maxReadaheadBytes: number;
  flags: bigint;
  maxBackground: number;
  congestionThreshold: number;
  maxWriteBytes: number;
  maxPages: number;
  maxStackDepth: number;
}

/** The parts of struct fuse_setattr_in, which `valid` says are meant (FATTR_* bits). */
export interface SetAttr {
  valid: number;
  fh: number;
  size: number;
  mode: number;
  uid: number;
  gid: number;
  /** Index of the first word of the seconds in the request's words, and of the nanoseconds. */
  atimeWord: number;
  atimeNsWord: number;
  mtimeWord: number;
  mtimeNsWord: number;
}

export interface Layout {
  readonly minor: number;
  /** Bytes of struct fuse_attr. */
  readonly attrBytes: number;
  /** Bytes before the name of RENAME, and of SETXATTR and GETXATTR before theirs. */
  readonly renameBytes: number;
  readonly setxattrBytes: number;
  readonly getxattrBytes: number;
  /** Whether a lookup that fails may be answered by an entry with node 0, which the kernel may cache. */
  readonly negativeEntries: boolean;
  /** Flags of INIT that mean on this wire what they mean on Linux's and that may be agreed to. */
  readonly flags: bigint;
  /** Writes struct fuse_attr at word `at` of `out`. */
  encodeAttr(stat: Stat, out: Uint32Array, at: number): void;
  decodeSetAttr(request: Request, into: SetAttr): void;
  decodeInit(request: Request): InitRequest | undefined;
  /** Writes struct fuse_init_out at word `at`; its bytes. */
  encodeInit(reply: InitReply, out: Uint32Array, at: number): number;
  /** Flags of an open, and of SETXATTR, as Linux's numbers. */
  openFlags(flags: number): number;
  xattrFlags(flags: number): number;
  /** The number of an error (see errno.ts) on this wire. */
  errno(error: number): number;
}
