/** Pseudo-terminals (pty(7), ioctl_tty(2)). Numbers are those of x86-64 and arm64. */
import { constants, openSync } from 'node:fs';
import { cFunction, check, errno, errnoName } from './libc.ts';

const rawIoctl = cFunction('ioctl', 'int', ['int', 'ulong', '...']);
const rawWrite = cFunction('write', 'int64', ['int', 'void *', 'size_t']);

const TIOCSPTLCK = 0x40045431;
const TIOCGPTPEER = 0x5441;
const TIOCGPTN = 0x80045430;
const TIOCSWINSZ = 0x5414;
const TIOCSCTTY = 0x540e;
const O_CLOEXEC = 0x80000;

/** A terminal: the ends that a screen and a program hold. */
export interface PseudoTerminal {
  master: number;
  slave: number;
}

/**
 * Opens a new terminal of a devpts. The slave is opened through the master, so that no path of a container decides
 * which terminal that is.
 *
 * @param ptmxFd an open `ptmx` of the devpts, which becomes the master.
 */
export function openTerminal(ptmxFd: number): PseudoTerminal {
  check(rawIoctl(ptmxFd, TIOCSPTLCK, 'void *', Buffer.alloc(4)), 'ioctl', 'TIOCSPTLCK');
  const flags = constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC;
  const slave = check(rawIoctl(ptmxFd, TIOCGPTPEER, 'int', flags), 'ioctl', 'TIOCGPTPEER');
  return { master: ptmxFd, slave };
}

/** The name of a terminal's slave in its devpts, a number. */
export function terminalNumber(master: number): number {
  const number = new Uint32Array(1);
  check(rawIoctl(master, TIOCGPTN, 'void *', new Uint8Array(number.buffer)), 'ioctl', 'TIOCGPTN');
  return number[0]!;
}

/** Opens a new terminal of the machine's own devpts. */
export function openHostTerminal(): PseudoTerminal {
  return openTerminal(openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC));
}

export function setWindowSize(fd: number, rows: number, columns: number): void {
  const winsize = new Uint8Array(new Uint16Array([rows, columns, 0, 0]).buffer);
  check(rawIoctl(fd, TIOCSWINSZ, 'void *', winsize), 'ioctl', 'TIOCSWINSZ');
}

/** Makes a terminal the controlling one of the calling process, a session leader without one. */
export function setControllingTerminal(fd: number): void {
  check(rawIoctl(fd, TIOCSCTTY, 'int', 0), 'ioctl', 'TIOCSCTTY');
}

/** Writes what fits at once to a descriptor with O_NONBLOCK. Returns the bytes taken, 0 when none fits now. */
export function writeSome(fd: number, bytes: Uint8Array): number {
  const written = Number(rawWrite(fd, bytes, bytes.length));
  if (written < 0 && errnoName(errno()) === 'EAGAIN') return 0;
  return check(written, 'write');
}
