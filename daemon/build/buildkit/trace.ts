/** The progress of a build as BuildKit's clients show it: vertices with times, output and sub-tasks. */
import type { Clock } from '#common/clock';
import { digestOf } from '../../image/content.ts';
import type { Progress } from '../../image/store.ts';
import { type StatusInputs, StatusResponse, type Timestamp, timestamp } from './messages.ts';

/** One step, while it is under way and when it has ended. */
export interface Step {
  log(text: string): void;
  /** Something inside the step, such as a layer that is pulled; a line of docker's own progress. */
  status(line: Progress): void;
  /** Bytes that come from the client, of which nobody knows how many there will be. */
  transfer(what: string): { received(bytes: number): void; end(): void };
  /** @param error why it failed */
  end(outcome?: { cached?: boolean; error?: string }): void;
}

/** Between two reports of bytes that come: a terminal shows no more, and a build must not wait for it. */
const TRANSFER_MS = 100;

/** Writes the trace of one build. */
export class Trace {
  readonly #clock: Clock;
  readonly #emit: (message: Uint8Array) => void;
  readonly #build: string;
  #steps = 0;

  /** @param build makes digests of steps distinct between builds @param emit takes encoded StatusResponses */
  constructor(clock: Clock, build: string, emit: (message: Uint8Array) => void) {
    this.#clock = clock;
    this.#build = build;
    this.#emit = emit;
  }

  begin(name: string): Step {
    const digest = digestOf(`${this.#build} ${this.#steps++} ${name}`);
    const started = this.#now();
    const since = new Map<string, Timestamp>();
    this.#send({ vertexes: [{ digest, name, started }] });
    return {
      log: (text) =>
        this.#send({
          logs: [{ vertex: digest, timestamp: this.#now(), stream: 1, msg: Buffer.from(text) }],
        }),
      status: ({ id, status, progressDetail }) => {
        if (status === undefined) return;
        const ID = `${id === undefined ? '' : `${id} `}${status}`;
        const timestamp = this.#now();
        if (!since.has(ID)) since.set(ID, timestamp);
        const { current = 0, total = 0 } = progressDetail ?? {};
        const isDone = current >= total;
        this.#send({
          statuses: [
            {
              ...{ ID, vertex: digest, name: ID, current, total, timestamp, started: since.get(ID)! },
              ...(isDone && { completed: timestamp }),
            },
          ],
        });
      },
      transfer: (what) => {
        const ID = `transferring ${what}:`;
        const begun = this.#now();
        let current = 0;
        let toldMs = Number.NEGATIVE_INFINITY;
        const tell = (more: { completed?: Timestamp }): void => {
          const timestamp = this.#now();
          toldMs = this.#clock.now();
          const bytes = { current, total: 0 };
          this.#send({
            statuses: [{ ID, vertex: digest, name: ID, ...bytes, timestamp, started: begun, ...more }],
          });
        };
        return {
          received: (bytes) => {
            current = bytes;
            if (this.#clock.now() - toldMs >= TRANSFER_MS) tell({});
          },
          end: () => tell({ completed: this.#now() }),
        };
      },
      end: ({ cached = false, error = '' } = {}) =>
        this.#send({ vertexes: [{ digest, name, started, completed: this.#now(), cached, error }] }),
    };
  }

  /** Runs work as a step. */
  async run<T>(name: string, work: (step: Step) => Promise<T>): Promise<T> {
    const step = this.begin(name);
    try {
      const result = await work(step);
      step.end();
      return result;
    } catch (error) {
      step.end({ error: error instanceof Error ? error.message : String(error) });
      throw error;
    }
  }

  #send(message: StatusInputs): void {
    this.#emit(StatusResponse.encode(message));
  }

  #now(): Timestamp {
    return timestamp(this.#clock.wallMs());
  }
}
