/**
 * What is known about a file travels inside the bridge as the words of Linux's struct statx: a host fills them by one
 * system call, and attributes are copied to a reply word by word, without an object or a 64-bit number on the way.
 * 64-bit fields are two words, low first. Another host than Linux fills the same words.
 */

export type Stat = Uint32Array;

/** Bytes of struct statx. */
export const STAT_BYTES = 256;

/** Indexes of words. */
export const MASK = 0;
export const BLOCK_SIZE = 1;
export const NLINK = 4;
export const UID = 5;
export const GID = 6;
/** The upper half of the word is padding. */
export const MODE = 7;
export const INO = 8;
export const SIZE = 10;
export const BLOCKS = 12;
/** A time is three words: seconds (two, signed) and nanoseconds. */
export const ATIME = 16;
export const BTIME = 20;
export const CTIME = 24;
export const MTIME = 28;
export const RDEV_MAJOR = 32;
export const RDEV_MINOR = 33;
export const DEV_MAJOR = 34;
export const DEV_MINOR = 35;

/** STATX_BASIC_STATS | STATX_BTIME. */
export const STATX_ALL = 0xfff;

export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_IXGRP = 0o010;

/** A device number as the kernel's new_encode_dev() puts it into 32 bits, which is makedev() for mknod(2) too. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

/** Two words as a number; exact below 2^53. */
export function uint64(words: Uint32Array, at: number): number {
  return words[at]! + words[at + 1]! * 0x1_0000_0000;
}

/** Stores a non-negative number below 2^53 as two words. */
export function putUint64(words: Uint32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = value / 0x1_0000_0000;
}
