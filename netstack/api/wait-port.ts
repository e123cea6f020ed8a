/**
 * `GET /extension/wait_port?ip=A&port=P&timeout=SECONDS`, as lima's own network has it beside gvproxy's paths: answers once the port of a
 * machine takes connections. lima asks for ssh before it says that a machine is up.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseAddress } from '../wire/address.ts';
import type { Dial } from './forwarder.ts';
import type { Answer, Route } from './route.ts';

const TIMEOUT_SECONDS_DEFAULT = 10;
const SECONDS_MAX = 65_535;
/** How long until it is tried again. */
const RETRY_MS = 1000;

/** The route. @param retryMs tests are in more of a hurry */
export function waitPortRoute(dial: Dial, retryMs: number = RETRY_MS): Route {
  return {
    method: 'GET',
    path: '/extension/wait_port',
    answer: async (_body, query): Promise<Answer> => {
      const ip = query.get('ip') ?? '';
      const port = Number(query.get('port'));
      const seconds = Number(query.get('timeout') ?? TIMEOUT_SECONDS_DEFAULT);
      if (!parseAddress(ip)) return { status: 400, text: `invalid ip address: ${ip}\n` };
      if (!Number.isInteger(port) || port < 1 || port > 65_535)
        return { status: 400, text: `invalid port: ${query.get('port')}\n` };
      if (!Number.isInteger(seconds) || seconds < 0 || seconds > SECONDS_MAX)
        return { status: 400, text: `invalid timeout: ${query.get('timeout')}\n` };
      const lastMs = performance.now() + seconds * 1000;
      const isOver = sleep(seconds * 1000, false, { ref: false });
      do {
        const accepts = dial(ip, port).then(
          (stream) => {
            stream.destroy();
            return true;
          },
          () => sleep(retryMs, false),
        );
        if (await Promise.race([accepts, isOver])) return {};
      } while (performance.now() < lastMs);
      return {
        status: 408,
        text: `timed out waiting for port to become available on ${ip}:${port}\n`,
      };
    },
  };
}
