/** A person at a terminal: a program with a controlling terminal of its own, whose window can be resized. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { cFunction, check } from '#common/native/libc';
import { until } from './daemon.ts';

const ioctl = cFunction('ioctl', 'int', ['int', 'unsigned long', '...']);
// asm-generic/ioctls.h
const TIOCSWINSZ = 0x5414;
const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;

/** A running program on a terminal. */
export class Terminal {
  readonly child: ChildProcess;
  readonly #master: ReadStream;
  readonly #masterFd: number;
  #screen = '';

  constructor(
    program: string,
    args: string[],
    env: NodeJS.ProcessEnv,
    size: { rows: number; columns: number },
  ) {
    this.#masterFd = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY);
    const number = Buffer.alloc(4);
    check(ioctl(this.#masterFd, TIOCSPTLCK, 'void *', Buffer.alloc(4)), 'ioctl', 'TIOCSPTLCK');
    check(ioctl(this.#masterFd, TIOCGPTN, 'void *', number), 'ioctl', 'TIOCGPTN');
    this.resize(size.rows, size.columns);
    const slave = openSync(`/dev/pts/${number.readUInt32LE()}`, constants.O_RDWR | constants.O_NOCTTY);
    // setsid -c makes the terminal the controlling one, so that the program gets SIGWINCH and SIGHUP.
    this.child = spawn('setsid', ['--ctty', '--wait', program, ...args], {
      env,
      stdio: [slave, slave, slave],
    });
    closeSync(slave);
    this.#master = new ReadStream(this.#masterFd);
    this.#master.on('data', (chunk) => (this.#screen += chunk));
    // A terminal whose last user has gone reads as EIO.
    this.#master.on('error', () => {});
  }

  /** All output so far. */
  get screen(): string {
    return this.#screen;
  }

  /** Types. */
  type(text: string): void {
    (this.#master as unknown as NodeJS.WritableStream).write(text);
  }

  resize(rows: number, columns: number): void {
    const size = Buffer.alloc(8);
    size.writeUInt16LE(rows, 0);
    size.writeUInt16LE(columns, 2);
    check(ioctl(this.#masterFd, TIOCSWINSZ, 'void *', size), 'ioctl', 'TIOCSWINSZ');
  }

  /** Resolves when the output holds `text`. */
  async sees(text: string | RegExp): Promise<void> {
    const has = (): boolean =>
      typeof text === 'string' ? this.#screen.includes(text) : text.test(this.#screen);
    await until(has, `the terminal shows ${text}`).catch((error: Error) => {
      throw new Error(`${error.message}; it shows:\n${this.#screen}`);
    });
  }

  /** Resolves with the exit code when the program has ended. */
  async exited(): Promise<number | null> {
    await until(() => this.child.exitCode !== null || this.child.signalCode !== null, 'the program ends');
    return this.child.exitCode;
  }

  close(): void {
    this.child.kill('SIGKILL');
    this.#master.destroy();
  }
}
