/** Where machines plug in, as people write it. */
import { DrydockError } from '#common/errors';
import { parseDescriptor } from '../units.ts';
import type { LinkEndpoint, LinkProtocol } from './listeners.ts';

/**
 * Reads `fd:3` (a socket that came with the process, for the stream protocols), `unix:///path`, `unixgram:///path`, `unixpacket:///path` or `tcp://address:port`, as gvproxy's flags have them for each protocol.
 * @throws DrydockError ERR_LINK_URL_INVALID
 */
export function parseLinkUrl(protocol: LinkProtocol, url: string): LinkEndpoint {
  const scheme = protocol === 'vfkit' ? 'unixgram' : protocol === 'bess' ? 'unixpacket' : 'unix';
  const path = /^(unix|unixgram|unixpacket):\/\/(\/.+)$/.exec(url);
  if (path && (path[1] === scheme || path[1] === 'unix')) return { path: path[2]! };
  const tcp = /^tcp:\/\/(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):(\d{1,5})$/.exec(url);
  if (tcp && scheme === 'unix' && Number(tcp[3]) < 0x1_0000)
    return { address: (tcp[1] ?? tcp[2])!, port: Number(tcp[3]) };
  const descriptor = parseDescriptor(url);
  if (descriptor !== undefined && scheme === 'unix') return { descriptor };
  throw new DrydockError(
    'ERR_LINK_URL_INVALID',
    `"${url}" is no place for ${protocol}. Give one like ${scheme}:///run/drydock/vm.sock` +
      `${scheme === 'unix' ? ' or tcp://127.0.0.1:1234' : ''}.`,
  );
}
