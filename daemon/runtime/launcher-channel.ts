/** The daemon's end of a launcher's channel. See daemon/launch/protocol.ts for what is said. */
import type { Socket } from 'node:net';
import { assert, DrydockError, errorMessage } from '#common/errors';
import type { ToDarwinLauncher } from '../launch/darwin.ts';
import type { FromLauncher, ToLauncher } from '../launch/protocol.ts';

/** A launcher says a few hundred bytes at a time; what is longer is not one of ours. */
const LINE_BYTES_MAX = 65_536;

/** See the module's head. */
export class LauncherChannel {
  readonly #socket: Socket;
  readonly #died: () => Promise<Error>;
  readonly #lines: FromLauncher[] = [];
  #received = '';
  #closed = false;
  #wake: () => void = () => {};

  /** @param died what expect() throws when the channel has closed instead. */
  constructor(socket: Socket, died: () => Promise<Error>) {
    this.#socket = socket;
    this.#died = died;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#closed = true;
      this.#wake();
    });
  }

  /** Lets the daemon end although the launcher still waits. */
  unref(): void {
    this.#socket.unref();
  }

  ref(): void {
    this.#socket.ref();
  }

  send(message: ToLauncher | ToDarwinLauncher): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /**
   * The launcher's next message, which must be of this type.
   *
   * @throws DrydockError what the launcher says failed, or that it has died.
   */
  async expect<T extends FromLauncher['type']>(type: T): Promise<FromLauncher & { type: T }> {
    while (this.#lines.length === 0 && !this.#closed) await this.#change();
    const message = this.#lines.shift();
    if (message === undefined) throw await this.#died();
    if (message.type === 'failed') throw new LauncherFailed(message);
    assert(message.type === type, `a launcher says ${message.type} instead of ${type}`);
    return message as FromLauncher & { type: T };
  }

  /** Resolves when execve has closed the channel, or the process has gone. */
  async gone(): Promise<void> {
    while (!this.#closed) await this.#change();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #change(): Promise<void> {
    return new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  #receive(text: string): void {
    this.#received += text;
    for (let end = this.#received.indexOf('\n'); end >= 0; end = this.#received.indexOf('\n')) {
      this.#lines.push(JSON.parse(this.#received.slice(0, end)));
      this.#received = this.#received.slice(end + 1);
    }
    if (this.#received.length > LINE_BYTES_MAX) this.#socket.destroy();
    this.#wake();
  }
}

/** What a launcher tells of a failed step. */
export class LauncherFailed extends Error {
  override readonly name = 'LauncherFailed';
  readonly failure: FromLauncher & { type: 'failed' };
  constructor(failure: FromLauncher & { type: 'failed' }) {
    super(errorMessage(failure.message));
    this.failure = failure;
  }
}

/** The error that the rest of the daemon gets for a failed launch. */
/** moby: daemon/errors.go, setExitCodeFromError. */
function hint(message: string): string {
  return message.endsWith('not a directory')
    ? ': Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type'
    : '';
}

export function launchError(error: unknown, prefix: string): DrydockError {
  if (error instanceof DrydockError) return error;
  if (!(error instanceof LauncherFailed))
    return new DrydockError('ERR_JAIL', `${prefix}: ${errorMessage(error)}: unknown`, { cause: error });
  const { kind, step, message } = error.failure;
  switch (kind) {
    case 'program-not-found':
      return new DrydockError('ERR_EXEC_NOT_FOUND', `${prefix}: ${message}: unknown`);
    case 'program-not-permitted':
      return new DrydockError('ERR_EXEC_PERMISSION', `${prefix}: ${message}: unknown`);
    case 'user-not-found':
      return new DrydockError('ERR_USER_NOT_FOUND', message);
    case 'no-room':
    case 'step':
      return new DrydockError(
        'ERR_JAIL',
        `${[prefix, step, message].filter(Boolean).join(': ')}: unknown${hint(message)}`,
      );
  }
}
