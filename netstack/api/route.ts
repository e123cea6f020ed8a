/** The shape of a request's handler in the control API. */
import type { Readable } from 'node:stream';

/** What is answered; text unless it says otherwise. */
export interface Answer {
  status?: number;
  /** Sent as JSON. */
  json?: unknown;
  text?: string;
  /** Frames as they pass, until either side has enough. */
  stream?: Readable;
}

export interface Route {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  path: string;
  /**
   * Whose ways it has: gvproxy's sends JSON as text, and errors as a line of text; VPNKit's sends what it is, and errors as 400
   * with `{"message":…}`. Default: gvproxy's.
   */
  manner?: 'vpnkit';
  /** `body` is parsed JSON: of POST and PUT, and of VPNKit's DELETE. `caller` is the address of a guest that asks. */
  answer(body: unknown, query: URLSearchParams, caller?: string): Promise<Answer>;
}
