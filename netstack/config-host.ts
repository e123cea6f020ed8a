/**
 * The parts of a network's configuration that lead from guests to the host: which addresses stand for it (gvproxy's `nat` and
 * `gatewayVirtualIPs`), and whom to notify. Pure.
 */
import { DrydockError } from '#common/errors';
import { formatIpv4, isMulticastIpv4, isReservedIpv4, isThisNetworkIpv4, parseIpv4 } from './wire/address.ts';

/** The keys of `stack` about the host's addresses. */
export interface HostFile {
  hostIP?: string;
  nat?: Record<string, string>;
  gatewayVirtualIPs?: string[];
}

function readAddress(text: string, path: string): string {
  const address = parseIpv4(text);
  if (
    address === undefined ||
    isMulticastIpv4(address) ||
    isReservedIpv4(address) ||
    isThisNetworkIpv4(address)
  )
    throw new DrydockError(
      'ERR_NET_CONFIG_INVALID',
      `${path} has "${text}", which is no IPv4 address of a host. Give one like 192.168.127.254.`,
    );
  return formatIpv4(address);
}

/**
 * The addresses that are the gateway's besides its own, and where each leads. As gvproxy has it, an empty `nat` means that the
 * host's address leads to loopback; a virtual address that `nat` does not name leads to the same address of the host's side.
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function resolveHostAddresses(
  stack: HostFile,
  gatewayIp: string,
  hostIp: string,
): Record<string, string> {
  const nat = Object.entries(stack.nat ?? {});
  const result: Record<string, string> = nat.length > 0 ? {} : { [hostIp]: '127.0.0.1' };
  for (const [key, value] of nat) {
    const address = readAddress(key, 'stack.nat');
    // That the gateway leads to the host's loopback is so anyway; lima says it.
    if (address === gatewayIp && value === '127.0.0.1') continue;
    if (address === gatewayIp)
      throw new DrydockError(
        'ERR_NET_CONFIG_INVALID',
        `stack.nat has ${key}, the address of the gateway, which leads to 127.0.0.1 and nowhere else. Take another address.`,
      );
    result[address] = readAddress(value, `stack.nat.${key}`);
  }
  const virtual = stack.gatewayVirtualIPs ?? [];
  for (const text of virtual.length > 0 ? virtual : [hostIp]) {
    const address = readAddress(text, 'stack.gatewayVirtualIPs');
    if (address !== gatewayIp) result[address] ??= address;
  }
  return result;
}

/**
 * The path of a unix socket, which is given as a URL or a path (gvproxy's flag for notifications takes the one, its file the other).
 * @throws DrydockError ERR_NET_CONFIG_INVALID
 */
export function resolveUnix(key: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const path = text.startsWith('unix://') ? text.slice('unix://'.length) : text;
  if (!path.startsWith('/'))
    throw new DrydockError(
      'ERR_NET_CONFIG_INVALID',
      `${key} is "${text}", no unix socket. Give one like unix:///run/net.sock.`,
    );
  return path;
}
