/**
 * Tells a program what happens, by gvproxy's notifications: for each, a connection to its unix socket with one line of JSON.
 *
 * They go one after another, so that they come in order, and wait in a short queue: a listener that is slow or absent holds up
 * nothing, it misses some. gvproxy: `pkg/notification`, `pkg/types`.
 */
import { connect } from 'node:net';
import { errorMessage } from '#common/errors';
import type { Log } from '#common/log';

/** Notifications that wait; more are dropped, as gvproxy does. */
const QUEUE_MAX = 100;
/** How long a listener may take to accept one and to read it. */
const SEND_TIMEOUT_MS = 2000;

/** What is told; `mac_address` is the machine's. */
export type Notification =
  | { notification_type: 'ready' | 'hypervisor_error' }
  | { notification_type: 'connection_established' | 'connection_closed'; mac_address: string };

export class Notifier {
  readonly #path: string;
  readonly #log: Log;
  readonly #queue: Notification[] = [];
  #sending: Promise<void> | undefined;

  /** @param path of the listener's socket */
  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
  }

  /** Tells something, soon. */
  send(notification: Notification): void {
    if (this.#queue.length >= QUEUE_MAX) {
      this.#log.warn({ notification }, 'a notification is dropped: too many wait');
      return;
    }
    this.#queue.push(notification);
    this.#sending ??= this.#drain();
  }

  /** Resolves when all have been told, or could not be. */
  async close(): Promise<void> {
    await this.#sending;
  }

  async #drain(): Promise<void> {
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      const notification = next;
      await this.#deliver(notification).catch((error: unknown) =>
        this.#log.warn(
          { notification, socket: this.#path },
          `a notification is lost: ${errorMessage(error)}`,
        ),
      );
    }
    this.#sending = undefined;
  }

  #deliver(notification: Notification): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#path);
      const timer = setTimeout(
        () => socket.destroy(new Error('the listener takes too long')),
        SEND_TIMEOUT_MS,
      );
      let failure: Error | undefined;
      socket
        .on('error', (error) => {
          failure = error;
        })
        .on('close', () => {
          clearTimeout(timer);
          if (failure) reject(failure);
          else resolve();
        })
        // The listener's end of stream closes the socket; what it says is not for us.
        .resume()
        // As gvproxy does, no waiting for the listener's end: it may keep its side open.
        .end(`${JSON.stringify(notification)}\n`, () => socket.destroySoon());
    });
  }
}
