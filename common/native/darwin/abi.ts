/**
 * Darwin's binary interface, as far as it is used here: numbers, layouts, prototypes. Everything else about Darwin in
 * this repository takes them from here.
 *
 * Nobody who works on this needs a Mac to see that they are right: tools/darwin-abi.mjs makes a C program of this table
 * and compiles it against Apple's headers for both architectures. What the compiler found is in abi.golden.json, which a
 * test compares with the table. `header` is where Apple declares a thing; those under `xnu/` are only in the kernel's
 * published sources and not in the SDK.
 */

/** Integer constants by header. */
export const CONSTANTS = {
  'fcntl.h': {
    O_RDWR: 2,
    O_APPEND: 8,
    O_NOFOLLOW: 0x100,
    O_CREAT: 0x200,
    O_TRUNC: 0x400,
    O_EXCL: 0x800,
    O_DIRECTORY: 0x100000,
    O_SYMLINK: 0x200000,
    O_CLOEXEC: 0x1000000,
    AT_FDCWD: -2,
    AT_SYMLINK_NOFOLLOW: 0x20,
    AT_REMOVEDIR: 0x80,
    F_GETPATH: 50,
    F_FULLFSYNC: 51,
    O_NOCTTY: 0x20000,
    F_SETFD: 2,
    F_GETFL: 3,
    F_SETFL: 4,
    FD_CLOEXEC: 1,
    O_NONBLOCK: 4,
  },
  'errno.h': { ENOENT: 2, EINTR: 4, EAGAIN: 35 },
  'sys/event.h': {
    EVFILT_READ: -1,
    EVFILT_WRITE: -2,
    EV_ADD: 1,
    EV_DELETE: 2,
    EV_CLEAR: 0x20,
    EV_ERROR: 0x4000,
    EV_EOF: 0x8000,
  },
  'signal.h': { SIG_SETMASK: 3, NSIG: 32, SIGKILL: 9, SIGSTOP: 17 },
  'dlfcn.h': { RTLD_NOW: 2 },
  'sys/stat.h': { S_IFCHR: 0o020000, UTIME_NOW: -1, UTIME_OMIT: -2 },
  'sys/stdio.h': { RENAME_SWAP: 2, RENAME_EXCL: 4 },
  'sys/param.h': { MAXPATHLEN: 1024 },
  'sys/attr.h': {
    ATTR_BIT_MAP_COUNT: 5,
    ATTR_CMN_NAME: 1,
    ATTR_CMN_FILEID: 0x02000000,
    ATTR_CMN_RETURNED_ATTRS: 0x80000000,
    FSOPT_PACK_INVAL_ATTRS: 8,
  },
  'sys/ioctl.h': {
    TIOCSWINSZ: 0x80087467,
    TIOCSCTTY: 0x20007461,
    TIOCPTYGRANT: 0x20007454,
    TIOCPTYUNLK: 0x20007452,
    TIOCPTYGNAME: 0x40807453,
  },
  'sys/resource.h': {
    RLIMIT_CPU: 0,
    RLIMIT_FSIZE: 1,
    RLIMIT_DATA: 2,
    RLIMIT_STACK: 3,
    RLIMIT_CORE: 4,
    RLIMIT_AS: 5,
    RLIMIT_MEMLOCK: 6,
    RLIMIT_NPROC: 7,
    RLIMIT_NOFILE: 8,
    PRIO_DARWIN_PROCESS: 4,
    PRIO_DARWIN_BG: 0x1000,
    IOPOL_TYPE_DISK: 0,
    IOPOL_SCOPE_PROCESS: 0,
    IOPOL_THROTTLE: 3,
    RUSAGE_INFO_V4: 4,
  },
  'sys/proc_info.h': { PROC_UID_ONLY: 4, PROC_PIDTBSDINFO: 3 },
  'sys/proc.h': { SZOMB: 5 },
  'sys/socket.h': {
    PF_SYSTEM: 32,
    AF_SYSTEM: 32,
    AF_UNIX: 1,
    SOCK_STREAM: 1,
    SOCK_DGRAM: 2,
    SOL_SOCKET: 0xffff,
    SCM_RIGHTS: 1,
    MSG_DONTWAIT: 0x80,
  },
  'sys/kern_control.h': { CTLIOCGINFO: 0xc0644e03 },
  'xnu/bsd/sys/sys_domain.h': { SYSPROTO_CONTROL: 2, AF_SYS_CONTROL: 2 },
  'xnu/bsd/net/if_utun.h': { UTUN_OPT_IFNAME: 2 },
  'xnu/bsd/sys/csr.h': { CSR_ALLOW_UNRESTRICTED_FS: 2 },
  'xnu/bsd/sys/kern_memorystatus.h': {
    MEMORYSTATUS_CMD_SET_MEMLIMIT_PROPERTIES: 7,
    MEMORYSTATUS_CMD_GET_MEMLIMIT_PROPERTIES: 8,
    MEMORYSTATUS_MEMLIMIT_ATTR_FATAL: 1,
  },
} as const;

/** A C structure: bytes, and the offset of each member that is used. */
export interface StructLayout {
  header: string;
  size: number;
  fields: Readonly<Record<string, number>>;
}

/** Structures by their C names. */
export const STRUCTS = {
  'struct rlimit': { header: 'sys/resource.h', size: 16, fields: { rlim_cur: 0, rlim_max: 8 } },
  'struct sigaction': { header: 'signal.h', size: 16, fields: { sa_mask: 8, sa_flags: 12 } },
  'struct kevent': {
    header: 'sys/event.h',
    size: 32,
    fields: { ident: 0, filter: 8, flags: 10, fflags: 12, data: 16, udata: 24 },
  },
  'struct stat': {
    header: 'sys/stat.h',
    size: 144,
    fields: {
      st_dev: 0,
      st_mode: 4,
      st_nlink: 6,
      st_ino: 8,
      st_uid: 16,
      st_gid: 20,
      st_rdev: 24,
      st_atimespec: 32,
      st_mtimespec: 48,
      st_ctimespec: 64,
      st_birthtimespec: 80,
      st_size: 96,
      st_blocks: 104,
      st_blksize: 112,
    },
  },
  'struct statfs': {
    header: 'sys/mount.h',
    size: 2168,
    fields: { f_bsize: 0, f_blocks: 8, f_bfree: 16, f_bavail: 24, f_files: 32, f_ffree: 40 },
  },
  'struct attrlist': { header: 'sys/attr.h', size: 24, fields: { bitmapcount: 0, commonattr: 4 } },
  attribute_set_t: { header: 'sys/attr.h', size: 20, fields: { commonattr: 0 } },
  attrreference_t: { header: 'sys/attr.h', size: 8, fields: { attr_dataoffset: 0, attr_length: 4 } },
  'struct timespec': { header: 'time.h', size: 16, fields: { tv_sec: 0, tv_nsec: 8 } },
  'struct winsize': { header: 'sys/ioctl.h', size: 8, fields: { ws_row: 0, ws_col: 2 } },
  'struct rusage_info_v4': {
    header: 'sys/resource.h',
    size: 296,
    fields: {
      ri_user_time: 16,
      ri_system_time: 24,
      ri_phys_footprint: 72,
      ri_diskio_bytesread: 144,
      ri_diskio_byteswritten: 152,
    },
  },
  'struct proc_bsdinfo': {
    header: 'sys/proc_info.h',
    size: 136,
    fields: { pbi_status: 4, pbi_start_tvsec: 120, pbi_start_tvusec: 128 },
  },
  'struct mach_timebase_info': { header: 'mach/mach_time.h', size: 8, fields: { numer: 0, denom: 4 } },
  'struct ctl_info': { header: 'sys/kern_control.h', size: 100, fields: { ctl_id: 0, ctl_name: 4 } },
  'struct sockaddr_ctl': {
    header: 'sys/kern_control.h',
    size: 32,
    fields: { sc_len: 0, sc_family: 1, ss_sysaddr: 2, sc_id: 4, sc_unit: 8 },
  },
  'struct sockaddr_un': { header: 'sys/un.h', size: 106, fields: { sun_len: 0, sun_family: 1, sun_path: 2 } },
  'struct iovec': { header: 'sys/socket.h', size: 16, fields: { iov_base: 0, iov_len: 8 } },
  'struct msghdr': {
    header: 'sys/socket.h',
    size: 48,
    fields: { msg_iov: 16, msg_iovlen: 24, msg_control: 32, msg_controllen: 40 },
  },
  'struct cmsghdr': {
    header: 'sys/socket.h',
    size: 12,
    fields: { cmsg_len: 0, cmsg_level: 4, cmsg_type: 8 },
  },
  memorystatus_memlimit_properties_t: {
    header: 'xnu/bsd/sys/kern_memorystatus.h',
    size: 16,
    fields: {
      memlimit_active: 0,
      memlimit_active_attr: 4,
      memlimit_inactive: 8,
      memlimit_inactive_attr: 12,
    },
  },
} as const;

/** Functions by header, as C declares them. A header of '' is no public one: that the symbol exists is all that is known. */
export const PROTOTYPES = {
  'unistd.h': [
    'int chroot(const char *path)',
    'int chdir(const char *path)',
    'int setgid(gid_t gid)',
    'int setuid(uid_t uid)',
    'int setgroups(int count, const gid_t *groups)',
    'int execve(const char *path, char *const *argv, char *const *envp)',
    'int pipe(int *fds)',
    'int close(int fd)',
    'ssize_t write(int fd, const void *bytes, size_t length)',
    'ssize_t pread(int fd, void *bytes, size_t length, off_t position)',
    'ssize_t pwrite(int fd, const void *bytes, size_t length, off_t position)',
    'off_t lseek(int fd, off_t position, int whence)',
    'int ftruncate(int fd, off_t size)',
    'int fsync(int fd)',
    'void sync(void)',
    'int linkat(int fromFolder, const char *from, int toFolder, const char *to, int flags)',
    'int symlinkat(const char *target, int folder, const char *path)',
    'ssize_t readlinkat(int folder, const char *path, char *target, size_t size)',
    'int unlinkat(int folder, const char *path, int flags)',
    'int fchown(int fd, uid_t uid, gid_t gid)',
    'int fchownat(int folder, const char *path, uid_t uid, gid_t gid, int flags)',
    'int getattrlistbulk(int folder, void *list, void *buffer, size_t size, uint64_t options)',
  ],
  'fcntl.h': [
    'int fcntl(int fd, int command, ...)',
    'int openat(int folder, const char *path, int flags, ...)',
  ],
  'sys/stdio.h': [
    'int renameatx_np(int fromFolder, const char *from, int toFolder, const char *to, unsigned int flags)',
  ],
  'sys/mount.h': ['int fstatfs(int fd, struct statfs *found)'],
  'sys/ioctl.h': ['int ioctl(int fd, unsigned long request, ...)'],
  'sys/event.h': [
    'int kqueue(void)',
    'int kevent(int queue, const struct kevent *changes, int changeCount, struct kevent *events, int eventCount, const struct timespec *timeout)',
  ],
  'stdlib.h': ['int posix_openpt(int flags)'],
  'signal.h': [
    'int kill(pid_t pid, int signal)',
    'int sigaction(int signal, const struct sigaction *action, struct sigaction *before)',
    'int sigprocmask(int how, const sigset_t *set, sigset_t *before)',
  ],
  'dlfcn.h': ['void *dlopen(const char *path, int mode)'],
  'sys/stat.h': [
    'int mknod(const char *path, mode_t mode, dev_t device)',
    'int fstat(int fd, struct stat *found)',
    'int fstatat(int folder, const char *path, struct stat *found, int flags)',
    'int fchmod(int fd, mode_t mode)',
    'int fchmodat(int folder, const char *path, mode_t mode, int flags)',
    'int mkdirat(int folder, const char *path, mode_t mode)',
    'int mkfifoat(int folder, const char *path, mode_t mode)',
    'int futimens(int fd, const struct timespec *times)',
    'int utimensat(int folder, const char *path, const struct timespec *times, int flags)',
  ],
  'sys/resource.h': [
    'int setrlimit(int resource, const struct rlimit *limit)',
    'int setpriority(int which, id_t who, int priority)',
    'int setiopolicy_np(int type, int scope, int policy)',
  ],
  'libproc.h': [
    'int proc_listpids(uint32_t type, uint32_t info, void *buffer, int size)',
    'int proc_pidinfo(int pid, int flavor, uint64_t argument, void *buffer, int size)',
    'int proc_pid_rusage(int pid, int flavor, rusage_info_t *buffer)',
  ],
  'mach/mach_time.h': ['kern_return_t mach_timebase_info(mach_timebase_info_t info)'],
  'sys/socket.h': [
    'int socket(int domain, int type, int protocol)',
    'int connect(int fd, const struct sockaddr *address, socklen_t length)',
    'int bind(int fd, const struct sockaddr *address, socklen_t length)',
    'int listen(int fd, int backlog)',
    'int accept(int fd, struct sockaddr *address, socklen_t *length)',
    'ssize_t recvmsg(int fd, struct msghdr *message, int flags)',
    'int getsockopt(int fd, int level, int option, void *value, socklen_t *length)',
  ],
  '': [
    'int sandbox_init_with_parameters(const char *profile, uint64_t flags, const char *const *parameters, char **message)',
    'int sandbox_check(pid_t pid, const char *operation, int type, ...)',
    'int csr_get_active_config(uint32_t *config)',
    'ssize_t fgetxattr(int fd, const char *name, void *value, size_t size, uint32_t position, int options)',
    'int fsetxattr(int fd, const char *name, const void *value, size_t size, uint32_t position, int options)',
    'ssize_t flistxattr(int fd, char *names, size_t size, int options)',
    'int fremovexattr(int fd, const char *name, int options)',
    'int memorystatus_control(uint32_t command, int32_t pid, uint32_t flags, void *buffer, size_t size)',
  ],
} as const;

/** C's integer types of the prototypes, as koffi has them. Their sizes are in the golden file too. */
export const INTEGERS: Readonly<Record<string, string>> = {
  int: 'int32',
  int32_t: 'int32',
  uint32_t: 'uint32',
  uint64_t: 'uint64',
  'unsigned long': 'uint64',
  'unsigned int': 'uint32',
  size_t: 'uint64',
  ssize_t: 'int64',
  off_t: 'int64',
  pid_t: 'int32',
  uid_t: 'uint32',
  gid_t: 'uint32',
  id_t: 'uint32',
  mode_t: 'uint16',
  dev_t: 'int32',
  socklen_t: 'uint32',
  kern_return_t: 'int32',
};

/** Pointers that koffi converts; every other one is taken as the bytes that it points to. */
const POINTERS: Readonly<Record<string, string>> = {
  'const char *': 'str',
  'char *const *': 'const char **',
  'const char *const *': 'const char **',
  'char **': '_Out_ char **',
};

/** A function for koffi. */
export interface Declaration {
  name: string;
  result: string;
  parameters: string[];
}

function koffiType(type: string): string {
  const integer = INTEGERS[type];
  if (integer !== undefined) return integer;
  if (type === '...') return type;
  return POINTERS[type] ?? 'void *';
}

/** Splits `int chroot(const char *path)` into name, C types, and koffi's types. */
export function parsePrototype(text: string): Declaration & { c: { result: string; parameters: string[] } } {
  const [, result = '', name = '', list = ''] = /^(.*?[ *])(\w+)\((.*)\)$/.exec(text) ?? [];
  const parameters = list
    .split(', ')
    .filter((parameter) => parameter !== 'void')
    .map((parameter) => (parameter === '...' ? parameter : parameter.replace(/\w+$/, '').trim()));
  const c = { result: result.trim(), parameters };
  return { name, result: koffiType(c.result), parameters: parameters.map(koffiType), c };
}
