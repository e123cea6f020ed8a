/** The captures that run on one network, as its thread keeps them. */
import type { Log } from '#common/log';
import { Handles } from '../handles.ts';
import { Capture, type CaptureOptions, type CaptureState, type LiveCaptureOptions } from './pcap.ts';
import type { FrameObserver } from './switch.ts';

/** Where frames are seen. */
export interface Observable {
  /** @returns ends it */
  observe(observer: FrameObserver): () => void;
}

interface Running {
  readonly capture: Capture;
  /** Of a file; undefined: a live one. */
  readonly path: string | undefined;
  /** The log has its failure. */
  isTold: boolean;
  close(): void;
}

export class Captures {
  readonly #frames: Observable;
  readonly #wallMs: () => number;
  readonly #log: Log;
  readonly #running = new Handles<Running>();

  constructor(frames: Observable, wallMs: () => number, log: Log) {
    this.#frames = frames;
    this.#wallMs = wallMs;
    this.#log = log;
  }

  /**
   * Begins one, to a file or to a descriptor that is the capture's from now on; returns its number.
   * @throws DrydockError as {@link Capture} does
   */
  start(options: CaptureOptions | LiveCaptureOptions): number {
    const capture = new Capture(options, this.#wallMs);
    const stop = this.#frames.observe(capture);
    const running: Running = {
      capture,
      path: 'path' in options ? options.path : undefined,
      isTold: false,
      close: () => {
        stop();
        capture.close();
        this.#tell(running);
      },
    };
    return this.#running.add(running);
  }

  /** How one does; undefined when there is none of this number. */
  state(id: number): CaptureState | undefined {
    return this.#running.get(id)?.capture.state;
  }

  /** Ends one, and tells how it did. */
  end(id: number): CaptureState {
    const running = this.#running.get(id);
    this.#running.close(id);
    return running?.capture.state ?? { frames: 0, dropped: 0, failed: undefined };
  }

  /** Writes what has waited, and logs what has failed. Called at every turn of the loop. */
  poll(now: number): void {
    for (const running of this.#running.values()) {
      running.capture.poll(now);
      this.#tell(running);
    }
  }

  close(): void {
    this.#running.closeAll();
  }

  #tell(running: Running): void {
    const { failed, frames } = running.capture.state;
    // The reader of a live capture ends it by leaving.
    if (failed === undefined || running.isTold || running.path === undefined) return;
    running.isTold = true;
    this.#log.error(
      { path: running.path, failed, frames },
      'a capture has failed, and the network goes on without it',
    );
  }
}
