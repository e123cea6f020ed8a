/**
 * The sockets of names of all jails, in a thread of their own: Node's sockets take no descriptors, and these clients send
 * them. The thread knows no names; it asks for them by messages.
 */
import type { LocalSockets } from '#common/native/darwin/local-sockets';
import { EPOLLIN, type Readiness } from '#common/native/readiness';
import { Session } from './session.ts';
import type { Question } from './wire.ts';

/** What the thread is told. */
export type NamesCommand =
  | { listen: number; path: string }
  | { unlisten: number }
  | { answered: number; question: Question; addresses: string[] };

/** What it tells. */
export type NamesReport =
  | { listening: number; error?: string }
  /** `client` is for the answer alone. */
  | { asking: number; client: number; question: Question };

/** How long to wait while an answer may come by a message, which does not end the wait. */
const ASKED_WAIT_MS = 5;
/** Lets the thread be ended. */
const IDLE_WAIT_MS = 100;
/** Most clients of one jail. */
const CLIENTS_MAX = 256;

interface Client {
  id: number;
  listener: number;
  session: Session;
}

/** See the module's head. */
export class NamesLoop {
  readonly #sockets: LocalSockets;
  readonly #readiness: Readiness;
  readonly #tell: (report: NamesReport) => void;
  /** Listeners by what they are called, and what a descriptor listens for. */
  readonly #listeners = new Map<number, number>();
  readonly #clients = new Map<number, Client>();
  #clientNext = 1;
  #unanswered = 0;

  constructor(sockets: LocalSockets, readiness: Readiness, tell: (report: NamesReport) => void) {
    this.#sockets = sockets;
    this.#readiness = readiness;
    this.#tell = tell;
  }

  /** Waits for clients, and does what they want. */
  turn(): void {
    const count = this.#readiness.wait(this.#unanswered > 0 ? ASKED_WAIT_MS : IDLE_WAIT_MS);
    for (let index = 0; index < count; index++) {
      const fd = this.#readiness.eventFd(index);
      const client = this.#clients.get(fd);
      if (client) this.#receive(fd, client);
      else if (this.#listeners.has(fd)) this.#accept(fd);
    }
  }

  /** Does what it is told. */
  obey(command: NamesCommand): void {
    if ('listen' in command) this.#listen(command.listen, command.path);
    else if ('unlisten' in command) this.#unlisten(command.unlisten);
    else this.#answer(command.answered, command.question, command.addresses);
  }

  #listen(listener: number, path: string): void {
    try {
      this.#listeners.set(this.#watch(this.#sockets.listen(path)), listener);
      this.#tell({ listening: listener });
    } catch (error) {
      this.#tell({ listening: listener, error: String(error) });
    }
  }

  /** @throws SyscallError; then it is closed */
  #watch(fd: number): number {
    try {
      this.#readiness.add(fd, EPOLLIN, fd);
      return fd;
    } catch (error) {
      this.#sockets.close(fd);
      throw error;
    }
  }

  #unlisten(listener: number): void {
    for (const [fd, client] of this.#clients) if (client.listener === listener) this.#sendAway(fd, client);
    for (const [fd, other] of this.#listeners)
      if (other === listener) {
        this.#listeners.delete(fd);
        this.#sockets.close(fd);
      }
  }

  #accept(listenerFd: number): void {
    const listener = this.#listeners.get(listenerFd)!;
    const fd = this.#acceptNow(listenerFd);
    if (fd === undefined) return;
    const others = [...this.#clients.values()].filter((client) => client.listener === listener);
    if (others.length >= CLIENTS_MAX) {
      this.#sockets.close(fd);
      return;
    }
    this.#clients.set(fd, { id: this.#clientNext++, listener, session: new Session() });
  }

  /** A connection that cannot be had is its client's trouble; the next may. */
  #acceptNow(listenerFd: number): number | undefined {
    try {
      const fd = this.#sockets.accept(listenerFd);
      return fd === undefined ? undefined : this.#watch(fd);
    } catch {
      return undefined;
    }
  }

  #receive(fd: number, client: Client): void {
    const message = this.#sockets.receive(fd);
    if (!message) return;
    const outcome = client.session.receive(message.bytes, message.descriptors);
    let fine = message.bytes.length > 0 && !outcome.broken;
    for (const reply of outcome.replies) {
      fine = this.#sockets.write(reply.fd ?? fd, reply.bytes) && fine;
      if (reply.fd !== undefined) this.#sockets.close(reply.fd);
    }
    if (!fine) {
      this.#sendAway(fd, client);
      return;
    }
    for (const question of outcome.questions) {
      this.#unanswered++;
      this.#tell({ asking: client.listener, client: client.id, question });
    }
  }

  #answer(id: number, question: Question, addresses: string[]): void {
    this.#unanswered--;
    const found = [...this.#clients].find(([, client]) => client.id === id);
    if (!found) return;
    const [fd, client] = found;
    const bytes = client.session.answer(question, addresses);
    // Who does not read is not waited for.
    if (bytes && !this.#sockets.write(fd, bytes)) this.#sendAway(fd, client);
  }

  #sendAway(fd: number, { session }: Client): void {
    this.#clients.delete(fd);
    for (const each of [fd, ...session.abandoned()]) this.#sockets.close(each);
  }
}
