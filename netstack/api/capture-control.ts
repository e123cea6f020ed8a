/** Captures by the control API: at most one at a time is begun there, besides those of the command line and live ones. */
import type { Readable } from 'node:stream';
import { DrydockError } from '#common/errors';
import { mapping, text, whole } from '../config-shape.ts';
import { resolveCapture } from '../config-wire.ts';
import type { CaptureOptions, CaptureState, Network, RunningCapture } from '../index.ts';

/** Live captures at once, each of which looks at every frame. */
export const LIVE_CAPTURES_MAX = 8;

/** The body of `POST /capture`: sizes as on the command line, such as `10M`. */
const readBody = mapping({ path: text, filter: text, size: text, files: whole, snaplen: whole });

/** A capture as the API shows it. */
export interface CaptureRow extends CaptureState {
  path: string;
  filter: string;
}

interface Running {
  readonly options: CaptureOptions;
  readonly capture: RunningCapture;
}

export class CaptureControl {
  readonly #network: Network;
  readonly #standing: Running[] = [];
  #own: Running | undefined;
  #isStarting = false;
  #live = 0;

  constructor(network: Network) {
    this.#network = network;
  }

  /** Captures as long as the network runs; returns its end. @throws DrydockError as Network.capture() does */
  async stand(options: CaptureOptions): Promise<RunningCapture> {
    const capture = await this.#network.capture(options);
    this.#standing.push({ options, capture });
    return capture;
  }

  /**
   * Begins the API's own.
   * @throws DrydockError ERR_CAPTURE_RUNNING, ERR_BODY_INVALID, and what Network.capture() throws
   */
  async start(body: unknown): Promise<CaptureRow> {
    const { path, filter, size, files, snaplen } = readBody(body, 'The body');
    if (path === undefined) throw new DrydockError('ERR_BODY_INVALID', 'The body needs "path", a text.');
    if (this.#own || this.#isStarting)
      throw new DrydockError('ERR_CAPTURE_RUNNING', 'A capture is running already. DELETE /capture ends it.');
    const options = resolveCapture({
      'capture-file': path,
      ...(filter !== undefined && { 'capture-filter': filter }),
      ...(size !== undefined && { 'capture-size': size }),
      ...(files !== undefined && { 'capture-files': files }),
      ...(snaplen !== undefined && { 'capture-snaplen': snaplen }),
    })!;
    this.#isStarting = true;
    try {
      this.#own = { options, capture: await this.#network.capture(options) };
    } finally {
      this.#isStarting = false;
    }
    return row(this.#own);
  }

  /** Ends the API's own. @throws DrydockError ERR_CAPTURE_NONE */
  async end(): Promise<CaptureState> {
    const own = this.#own;
    if (!own) throw new DrydockError('ERR_CAPTURE_NONE', 'No capture is running.');
    this.#own = undefined;
    return own.capture.close();
  }

  /** Those to files and pipes, and how each does. */
  state(): Promise<CaptureRow[]> {
    return Promise.all([...this.#standing, ...(this.#own ? [this.#own] : [])].map(row));
  }

  /**
   * Frames as they pass, by `filter` and `snaplen` of a query; destroying the stream ends it.
   * @throws DrydockError ERR_CAPTURE_RUNNING, ERR_FILTER_INVALID, ERR_CAPTURE_OPTIONS
   */
  async live(query: URLSearchParams): Promise<Readable> {
    if (this.#live >= LIVE_CAPTURES_MAX)
      throw new DrydockError(
        'ERR_CAPTURE_RUNNING',
        `${LIVE_CAPTURES_MAX} live captures run already. End one of them.`,
      );
    const filter = query.get('filter');
    const snapLen = query.get('snaplen');
    this.#live++;
    try {
      const { stream } = await this.#network.captureLive({
        ...(filter !== null && { filter }),
        ...(snapLen !== null && { snapLen: Number(snapLen) }),
      });
      stream.once('close', () => this.#live--);
      return stream;
    } catch (error) {
      this.#live--;
      throw error;
    }
  }
}

async function row({ options, capture }: Running): Promise<CaptureRow> {
  return { path: options.path, filter: options.filter ?? '', ...(await capture.state()) };
}
