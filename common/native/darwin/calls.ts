/**
 * What jails ask of Darwin's kernel, with JavaScript types. Structures and numbers are those of abi.ts; nothing here has
 * run on a Mac. Limits of a process's memory, the state of System Integrity Protection and seatbelt are interfaces that
 * Apple does not document: their callers must do with a failure.
 */
import type { NativeFunction } from '../libc.ts';
import { CONSTANTS, STRUCTS } from './abi.ts';
import { callOf, type DarwinLibrary, failureOf, systemLibrary } from './library.ts';

const FCNTL = CONSTANTS['fcntl.h'];
const IOCTL = CONSTANTS['sys/ioctl.h'];
const RESOURCE = CONSTANTS['sys/resource.h'];
const SIGNALS = CONSTANTS['signal.h'];
const SOCKET = CONSTANTS['sys/socket.h'];
const MEMORY = CONSTANTS['xnu/bsd/sys/kern_memorystatus.h'];
const { EAGAIN } = CONSTANTS['errno.h'];

/** Limits by the names that setrlimit's manual and docker have for them. */
export const DARWIN_RLIMITS: Readonly<Record<string, number>> = {
  cpu: RESOURCE.RLIMIT_CPU,
  fsize: RESOURCE.RLIMIT_FSIZE,
  data: RESOURCE.RLIMIT_DATA,
  stack: RESOURCE.RLIMIT_STACK,
  core: RESOURCE.RLIMIT_CORE,
  as: RESOURCE.RLIMIT_AS,
  memlock: RESOURCE.RLIMIT_MEMLOCK,
  nproc: RESOURCE.RLIMIT_NPROC,
  nofile: RESOURCE.RLIMIT_NOFILE,
};
/** sys/resource.h: the largest signed number means none. */
const RLIM_INFINITY = (1n << 63n) - 1n;

const UTUN_CONTROL = 'com.apple.net.utun_control';
const IFNAME_BYTES = 16;
const TTY_NAME_BYTES = 128;
const PIDS_MAX = 4096;
const MEBIBYTE = 1 << 20;

/** What a process has used. Times in nanoseconds. */
export interface DarwinUsage {
  cpuUserNs: number;
  cpuSystemNs: number;
  memoryBytes: number;
  readBytes: number;
  writeBytes: number;
}

/** See the module's head. Calls throw SyscallError unless they say otherwise. */
export class DarwinCalls {
  readonly #library: DarwinLibrary;
  #tickNs: number | undefined;

  constructor(library: DarwinLibrary = systemLibrary()) {
    this.#library = library;
  }

  #native(name: string): NativeFunction {
    return this.#library.function(name);
  }

  #call(name: string, ...args: unknown[]): number {
    return callOf(this.#library, name, ...args);
  }

  // --- becoming a jail's process, for good ---------------------------------------------------------------------------

  /** Makes seatbelt loaded, which a root of its own may not have the file for. */
  loadSandboxLibrary(): void {
    const handle = this.#native('dlopen')('/usr/lib/libsandbox.1.dylib', CONSTANTS['dlfcn.h'].RTLD_NOW);
    if (!handle) throw new Error('/usr/lib/libsandbox.1.dylib cannot be loaded');
  }

  changeRoot(path: string): void {
    this.#call('chroot', path);
    this.#call('chdir', '/');
  }

  changeFolder(path: string): void {
    this.#call('chdir', path);
  }

  /** Groups first, since without root nothing more can be changed; then makes sure that there is no way back. */
  becomeUser(id: number): void {
    const groups = Buffer.alloc(4);
    groups.writeUInt32LE(id);
    this.#call('setgroups', 1, groups);
    this.#call('setgid', id);
    this.#call('setuid', id);
    if (Number(this.#native('setuid')(0)) === 0) throw new Error('root could be had back');
  }

  /** Puts the process under a seatbelt profile. @throws Error with what is wrong with the profile. */
  confine(profile: string, parameters: Readonly<Record<string, string>>): void {
    const list = [...Object.entries(parameters).flat(), null];
    const message: [string | null] = [null];
    const result = Number(this.#native('sandbox_init_with_parameters')(profile, 0, list, message));
    if (result !== 0) throw new Error(`the seatbelt profile is refused: ${message[0] ?? 'no reason given'}`);
  }

  /** Whether a process is under a profile. */
  isConfined(pid: number): boolean {
    return this.#call('sandbox_check', pid, null, 0) === 1;
  }

  /** @param resource of {@link DARWIN_RLIMITS}; -1 means no limit. */
  setResourceLimit(resource: number, soft: number, hard: number): void {
    const limit = Buffer.alloc(STRUCTS['struct rlimit'].size);
    const { rlim_cur, rlim_max } = STRUCTS['struct rlimit'].fields;
    const value = (wanted: number): bigint => (wanted < 0 ? RLIM_INFINITY : BigInt(wanted));
    limit.writeBigUInt64LE(value(soft), rlim_cur);
    limit.writeBigUInt64LE(value(hard), rlim_max);
    this.#call('setrlimit', resource, limit);
  }

  /** The calling process gives way to all others, for processor, disk and network. */
  becomeBackground(): void {
    this.#call('setpriority', RESOURCE.PRIO_DARWIN_PROCESS, 0, RESOURCE.PRIO_DARWIN_BG);
  }

  /** Its disk requests give way. */
  throttleDisk(): void {
    const { IOPOL_TYPE_DISK, IOPOL_SCOPE_PROCESS, IOPOL_THROTTLE } = RESOURCE;
    this.#call('setiopolicy_np', IOPOL_TYPE_DISK, IOPOL_SCOPE_PROCESS, IOPOL_THROTTLE);
  }

  /** All signals as a fresh process has them: Node ignores some, and execve keeps that. */
  resetSignals(): void {
    const byDefault = Buffer.alloc(STRUCTS['struct sigaction'].size);
    for (let signal = 1; signal < SIGNALS.NSIG; signal++)
      if (signal !== SIGNALS.SIGKILL && signal !== SIGNALS.SIGSTOP)
        this.#call('sigaction', signal, byDefault, null);
    this.#call('sigprocmask', SIGNALS.SIG_SETMASK, Buffer.alloc(4), null);
  }

  /** Whether a program inherits a descriptor. */
  setCloseOnExec(fd: number, close: boolean): void {
    this.#call('fcntl', fd, FCNTL.F_SETFD, 'int', close ? FCNTL.FD_CLOEXEC : 0);
  }

  /** Replaces the process. Returns only by throwing. */
  execve(path: string, args: string[], env: string[]): never {
    this.#call('execve', path, [...args, null], [...env, null]);
    throw new Error('execve returned');
  }

  // --- terminals and pipes -------------------------------------------------------------------------------------------

  /** A new terminal: its master, and where its other side is. */
  openTerminal(): { master: number; slavePath: string } {
    const master = this.#call('posix_openpt', FCNTL.O_RDWR | FCNTL.O_NOCTTY);
    try {
      this.setCloseOnExec(master, true);
      this.#call('ioctl', master, IOCTL.TIOCPTYGRANT, 'int', 0);
      this.#call('ioctl', master, IOCTL.TIOCPTYUNLK, 'int', 0);
      const name = Buffer.alloc(TTY_NAME_BYTES);
      this.#call('ioctl', master, IOCTL.TIOCPTYGNAME, 'void *', name);
      return { master, slavePath: cString(name) };
    } catch (error) {
      this.close(master);
      throw error;
    }
  }

  setWindowSize(fd: number, rows: number, columns: number): void {
    const size = Buffer.alloc(STRUCTS['struct winsize'].size);
    const { ws_row, ws_col } = STRUCTS['struct winsize'].fields;
    size.writeUInt16LE(rows, ws_row);
    size.writeUInt16LE(columns, ws_col);
    this.#call('ioctl', fd, IOCTL.TIOCSWINSZ, 'void *', size);
  }

  /** Makes a terminal that of the session which the calling process leads. */
  setControllingTerminal(fd: number): void {
    this.#call('ioctl', fd, IOCTL.TIOCSCTTY, 'int', 0);
  }

  /** A pipe that no program inherits. */
  pipe(): { read: number; write: number } {
    const fds = Buffer.alloc(8);
    this.#call('pipe', fds);
    const ends = { read: fds.readInt32LE(0), write: fds.readInt32LE(4) };
    try {
      for (const fd of [ends.read, ends.write]) this.setCloseOnExec(fd, true);
    } catch (error) {
      for (const fd of [ends.read, ends.write]) this.close(fd);
      throw error;
    }
    return ends;
  }

  setNonBlocking(fd: number): void {
    const flags = this.#call('fcntl', fd, FCNTL.F_GETFL, 'int', 0);
    this.#call('fcntl', fd, FCNTL.F_SETFL, 'int', flags | FCNTL.O_NONBLOCK);
  }

  /** Writes what fits now; 0 when nothing does. */
  writeSome(fd: number, bytes: Uint8Array): number {
    const written = Number(this.#native('write')(fd, bytes, bytes.length));
    if (written >= 0) return written;
    return this.#library.errno() === EAGAIN ? 0 : failureOf(this.#library, 'write');
  }

  /** Never throws: there is nothing to be done about a failure. */
  close(fd: number): void {
    this.#native('close')(fd);
  }

  // --- processes of a user -------------------------------------------------------------------------------------------

  /** Numbers of all processes whose effective user is `uid`, the ended but unreaped ones left out. */
  processesOf(uid: number): number[] {
    const pids = Buffer.alloc(4 * PIDS_MAX);
    const bytes = this.#call(
      'proc_listpids',
      CONSTANTS['sys/proc_info.h'].PROC_UID_ONLY,
      uid,
      pids,
      pids.length,
    );
    return Array.from({ length: Math.floor(bytes / 4) }, (_, index) => pids.readInt32LE(4 * index)).filter(
      (pid) => pid > 0 && this.#state(pid) !== CONSTANTS['sys/proc.h'].SZOMB,
    );
  }

  #bsdInfo(pid: number): Buffer | undefined {
    const { size } = STRUCTS['struct proc_bsdinfo'];
    const info = Buffer.alloc(size);
    const flavor = CONSTANTS['sys/proc_info.h'].PROC_PIDTBSDINFO;
    return Number(this.#native('proc_pidinfo')(pid, flavor, 0, info, size)) === size ? info : undefined;
  }

  #state(pid: number): number {
    // A process that can't be asked any more is as good as one that waits to be reaped.
    const info = this.#bsdInfo(pid);
    return (
      info?.readUInt32LE(STRUCTS['struct proc_bsdinfo'].fields.pbi_status) ?? CONSTANTS['sys/proc.h'].SZOMB
    );
  }

  /** When a process was started, in microseconds since 1970; '' when it is gone. */
  startTime(pid: number): string {
    const info = this.#bsdInfo(pid);
    if (!info) return '';
    const { pbi_start_tvsec, pbi_start_tvusec } = STRUCTS['struct proc_bsdinfo'].fields;
    return `${info.readBigUInt64LE(pbi_start_tvsec) * 1_000_000n + info.readBigUInt64LE(pbi_start_tvusec)}`;
  }

  /** What a process has used; undefined when it is gone. */
  usage(pid: number): DarwinUsage | undefined {
    const { size, fields } = STRUCTS['struct rusage_info_v4'];
    const info = Buffer.alloc(size);
    if (Number(this.#native('proc_pid_rusage')(pid, RESOURCE.RUSAGE_INFO_V4, info)) !== 0) return undefined;
    const number = (offset: number): number => Number(info.readBigUInt64LE(offset));
    return {
      cpuUserNs: number(fields.ri_user_time) * this.#nanosecondsPerTick(),
      cpuSystemNs: number(fields.ri_system_time) * this.#nanosecondsPerTick(),
      memoryBytes: number(fields.ri_phys_footprint),
      readBytes: number(fields.ri_diskio_bytesread),
      writeBytes: number(fields.ri_diskio_byteswritten),
    };
  }

  /** The kernel's clock ticks in nanoseconds on Intel, in 125/3 of them on Apple's processors. */
  #nanosecondsPerTick(): number {
    if (this.#tickNs === undefined) {
      const { size, fields } = STRUCTS['struct mach_timebase_info'];
      const info = Buffer.alloc(size);
      if (Number(this.#native('mach_timebase_info')(info)) !== 0) throw new Error('the clock has no rate');
      this.#tickNs = info.readUInt32LE(fields.numer) / info.readUInt32LE(fields.denom);
    }
    return this.#tickNs;
  }

  signal(pid: number, number: number): void {
    this.#call('kill', pid, number);
  }

  /** Has the kernel kill a process that takes more memory. @returns whether the kernel says afterwards that it will. */
  limitMemory(pid: number, bytes: number): boolean {
    const { size, fields } = STRUCTS.memorystatus_memlimit_properties_t;
    const wanted = Buffer.alloc(size);
    const mebibytes = Math.max(1, Math.floor(bytes / MEBIBYTE));
    for (const field of [fields.memlimit_active, fields.memlimit_inactive])
      wanted.writeInt32LE(mebibytes, field);
    for (const field of [fields.memlimit_active_attr, fields.memlimit_inactive_attr])
      wanted.writeUInt32LE(MEMORY.MEMORYSTATUS_MEMLIMIT_ATTR_FATAL, field);
    const control = this.#native('memorystatus_control');
    const set = MEMORY.MEMORYSTATUS_CMD_SET_MEMLIMIT_PROPERTIES;
    if (Number(control(set, pid, 0, wanted, size)) !== 0) return false;
    const got = Buffer.alloc(size);
    const get = MEMORY.MEMORYSTATUS_CMD_GET_MEMLIMIT_PROPERTIES;
    if (Number(control(get, pid, 0, got, size)) !== 0) return false;
    return got.readInt32LE(fields.memlimit_active) === mebibytes;
  }

  // --- the machine ---------------------------------------------------------------------------------------------------

  /** Whether programs with a dynamic linker of their own can run in a chroot: System Integrity Protection forbids it. */
  allowsOwnRoots(): boolean {
    const config = Buffer.alloc(4);
    this.#call('csr_get_active_config', config);
    const { CSR_ALLOW_UNRESTRICTED_FS } = CONSTANTS['xnu/bsd/sys/csr.h'];
    return (config.readUInt32LE(0) & CSR_ALLOW_UNRESTRICTED_FS) !== 0;
  }

  /** Makes a character device. @param rdev as stat(2) tells it of one of the host's. */
  makeCharacterDevice(path: string, mode: number, rdev: number): void {
    this.#call('mknod', path, CONSTANTS['sys/stat.h'].S_IFCHR | mode, rdev | 0);
  }

  /** Makes a new utun interface, which lives as long as its descriptor. Needs root. */
  openUtun(): { fd: number; name: string } {
    const { SYSPROTO_CONTROL, AF_SYS_CONTROL } = CONSTANTS['xnu/bsd/sys/sys_domain.h'];
    const fd = this.#call('socket', SOCKET.PF_SYSTEM, SOCKET.SOCK_DGRAM, SYSPROTO_CONTROL);
    try {
      this.setCloseOnExec(fd, true);
      const control = STRUCTS['struct ctl_info'];
      const info = Buffer.alloc(control.size);
      info.write(UTUN_CONTROL, control.fields.ctl_name);
      this.#call('ioctl', fd, CONSTANTS['sys/kern_control.h'].CTLIOCGINFO, 'void *', info);
      const { size, fields } = STRUCTS['struct sockaddr_ctl'];
      const address = Buffer.alloc(size);
      address.writeUInt8(size, fields.sc_len);
      address.writeUInt8(SOCKET.AF_SYSTEM, fields.sc_family);
      address.writeUInt16LE(AF_SYS_CONTROL, fields.ss_sysaddr);
      address.writeUInt32LE(info.readUInt32LE(control.fields.ctl_id), fields.sc_id);
      // Unit 0 asks for any that is free.
      this.#call('connect', fd, address, size);
      const name = Buffer.alloc(IFNAME_BYTES);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(IFNAME_BYTES);
      const { UTUN_OPT_IFNAME } = CONSTANTS['xnu/bsd/net/if_utun.h'];
      this.#call('getsockopt', fd, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, name, length);
      return { fd, name: cString(name) };
    } catch (error) {
      this.close(fd);
      throw error;
    }
  }
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}
