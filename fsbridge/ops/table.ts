/** All operations, by opcode: name, least bytes behind the header, handler. */
import { ENOSYS, ENOTTY } from '../wire/errno.ts';
import * as O from '../wire/opcode.ts';
import * as attr from './attr.ts';
import * as create from './create.ts';
import * as dir from './dir.ts';
import * as file from './file.ts';
import { init } from './init.ts';
import * as lock from './lock.ts';
import * as lookup from './lookup.ts';
import * as names from './names.ts';
import type { Operation } from './server.ts';
import * as xattr from './xattr.ts';

export interface Entry {
  readonly name: string;
  readonly bytesMin: number;
  readonly run: Operation;
}

/** Indexed by opcode; the kernel takes ENOSYS for what is missing and mostly does without from then on. */
export const operations: readonly (Entry | undefined)[] = (() => {
  const table: (Entry | undefined)[] = new Array(O.OPCODE_LIMIT).fill(undefined);
  const add = (opcode: number, name: string, bytesMin: number, run: Operation): void => {
    table[opcode] = { name, bytesMin, run };
  };
  add(O.LOOKUP, 'lookup', 2, lookup.lookup);
  add(O.FORGET, 'forget', 8, lookup.forget);
  add(O.BATCH_FORGET, 'batch_forget', 8, lookup.batchForget);
  add(O.GETATTR, 'getattr', 16, attr.getattr);
  add(O.STATX, 'statx', 24, attr.statx);
  add(O.SETATTR, 'setattr', 88, attr.setattr);
  add(O.ACCESS, 'access', 8, attr.access);
  add(O.STATFS, 'statfs', 0, attr.statfs);
  add(O.CREATE, 'create', 18, create.create);
  add(O.TMPFILE, 'tmpfile', 16, create.tmpfile);
  add(O.MKNOD, 'mknod', 18, create.mknod);
  add(O.MKDIR, 'mkdir', 10, create.mkdir);
  add(O.SYMLINK, 'symlink', 4, create.symlink);
  add(O.LINK, 'link', 10, create.link);
  add(O.UNLINK, 'unlink', 2, names.unlink);
  add(O.RMDIR, 'rmdir', 2, names.rmdir);
  add(O.RENAME, 'rename', 12, names.rename);
  add(O.RENAME2, 'rename2', 20, names.rename2);
  add(O.READLINK, 'readlink', 0, names.readlink);
  add(O.OPEN, 'open', 8, file.open);
  add(O.READ, 'read', 40, file.read);
  add(O.WRITE, 'write', 40, file.write);
  add(O.FLUSH, 'flush', 24, file.flush);
  add(O.RELEASE, 'release', 24, file.release);
  add(O.FSYNC, 'fsync', 16, file.fsync);
  add(O.FALLOCATE, 'fallocate', 32, file.fallocate);
  add(O.LSEEK, 'lseek', 24, file.lseek);
  add(O.COPY_FILE_RANGE, 'copy_file_range', 56, file.copyFileRange);
  add(O.SYNCFS, 'syncfs', 0, file.syncfs);
  add(O.OPENDIR, 'opendir', 8, dir.opendir);
  add(O.READDIR, 'readdir', 40, dir.readdir);
  add(O.READDIRPLUS, 'readdirplus', 40, dir.readdirplus);
  add(O.RELEASEDIR, 'releasedir', 24, dir.releasedir);
  add(O.FSYNCDIR, 'fsyncdir', 16, dir.fsyncdir);
  add(O.GETXATTR, 'getxattr', 10, xattr.getxattr);
  add(O.SETXATTR, 'setxattr', 10, xattr.setxattr);
  add(O.LISTXATTR, 'listxattr', 8, xattr.listxattr);
  add(O.REMOVEXATTR, 'removexattr', 2, xattr.removexattr);
  add(O.GETLK, 'getlk', 48, lock.getlk);
  add(O.SETLK, 'setlk', 48, lock.setlk);
  add(O.SETLKW, 'setlkw', 48, lock.setlkw);
  add(O.INTERRUPT, 'interrupt', 8, lock.interrupt);
  add(O.INIT, 'init', 16, init);
  add(O.DESTROY, 'destroy', 0, () => 0);
  // Nothing that a file here could do by ioctl crosses from one system to another.
  add(O.IOCTL, 'ioctl', 32, () => -ENOTTY);
  // The kernel's own answer, always ready, is right for regular files.
  add(O.POLL, 'poll', 24, () => -ENOSYS);
  return table;
})();
