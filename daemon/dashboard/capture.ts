/** The frames of one flow as a pcap file, while they come: what a click in the web page downloads. */
import { isIP } from 'node:net';
import { PassThrough, type Readable } from 'node:stream';
import { DrydockError } from '#common/errors';
import type { ApiContext } from '../api/context.ts';

/** Longest recording. */
const RECORD_S_MAX = 600;
const RECORD_S_DEFAULT = 10;

/** `and host A and port P` for `A:P`; `*` is anybody. @throws ERR_BAD_PARAMETER */
function endpointFilter(text: string, hasPort: boolean): string {
  if (text === '*') return '';
  const [, six, four, port] = /^(?:\[([0-9a-f:.]+)\]|([\d.]+)):(\d{1,5})$/.exec(text) ?? [];
  const address = six ?? four ?? '';
  if (isIP(address) === 0)
    throw new DrydockError('ERR_BAD_PARAMETER', `${text} is no endpoint: write address:port`);
  return ` and host ${address}${hasPort ? ` and port ${port}` : ''}`;
}

/** The expression of pcap-filter(7) for a flow as a snapshot names it. @throws ERR_BAD_PARAMETER */
export function flowFilter(protocol: string, guest: string, target: string): string {
  if (!['tcp', 'udp', 'icmp'].includes(protocol))
    throw new DrydockError('ERR_BAD_PARAMETER', `${protocol} is no protocol of a flow: tcp, udp, icmp`);
  const hasPort = protocol !== 'icmp';
  return `${protocol}${endpointFilter(guest, hasPort)}${endpointFilter(target, hasPort)}`;
}

/**
 * Records a flow for some seconds: network, protocol, guest, target and seconds of `query`.
 * @throws ERR_BAD_PARAMETER, ERR_NETWORK_NOT_FOUND
 */
export async function recordFlow(context: ApiContext, query: URLSearchParams): Promise<Readable> {
  const name = query.get('network') ?? '';
  const found = (await context.networks.running()).find((network) => network.name === name);
  if (!found) throw new DrydockError('ERR_NETWORK_NOT_FOUND', `network ${name} does not run`);
  const filter = flowFilter(query.get('protocol') ?? '', query.get('guest') ?? '', query.get('target') ?? '');
  const seconds = Number(query.get('seconds') ?? RECORD_S_DEFAULT);
  if (!(seconds > 0 && seconds <= RECORD_S_MAX))
    throw new DrydockError('ERR_BAD_PARAMETER', `seconds are a number up to ${RECORD_S_MAX}`);
  const { stream } = await found.network.captureLive({ filter });
  // A capture has no end of its own: what came until the time is up is the file.
  const file = new PassThrough();
  stream.pipe(file);
  const timer = context.clock.arm(context.clock.now() + seconds * 1000, () => {
    stream.unpipe(file);
    stream.destroy();
    file.end();
  });
  file.once('close', () => {
    timer.cancel();
    stream.destroy();
  });
  return file;
}
