/** Published ports: from `-p` and EXPOSE to the list of listeners to open. Pure. */
import { isIP } from 'node:net';
import { DrydockError } from '#common/errors';
import type { HostConfig, PortBinding } from '../container/types.ts';

/** A port of a container, `80/tcp`. */
export interface GuestPort {
  port: number;
  protocol: 'tcp' | 'udp';
}

/** One port to publish. */
export interface PortWish {
  guest: GuestPort;
  /** '' is every address. */
  hostAddress: string;
  /** Candidates: first and last port; both 0 for any. */
  hostFirst: number;
  hostLast: number;
}

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}

/** Parses `80/tcp`, `80`, `53/udp`. @throws ERR_BAD_PARAMETER, also for sctp, which the stack does not carry */
export function parseGuestPort(text: string): GuestPort {
  const match = /^(\d{1,5})(?:\/([a-z]+))?$/.exec(text.toLowerCase());
  const port = Number(match?.[1]);
  if (!match || port > 65535 || port === 0) throw invalid(`invalid port specification: "${text}"`);
  const protocol = match[2] ?? 'tcp';
  if (protocol === 'sctp')
    throw new DrydockError('ERR_NOT_IMPLEMENTED', `port ${text}: sctp is not supported, only tcp and udp`);
  if (protocol !== 'tcp' && protocol !== 'udp') throw invalid(`invalid proto: ${protocol}`);
  return { port, protocol };
}

/** `80/tcp`. */
export function formatGuestPort({ port, protocol }: GuestPort): string {
  return `${port}/${protocol}`;
}

function hostRange(text: string): [number, number] {
  if (text === '') return [0, 0];
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (!match || first > 65535 || last > 65535 || first > last)
    throw invalid(`invalid port specification: "${text}"`);
  return [first, last];
}

/** Checks `PortBindings` as create does. */
export function portWishes(
  bindings: HostConfig['PortBindings'],
  exposed: Record<string, object> | undefined,
  publishAll: boolean,
): PortWish[] {
  const wishes: PortWish[] = [];
  const add = (guest: GuestPort, binding: PortBinding): void => {
    const hostAddress = binding.HostIp ?? '';
    if (hostAddress !== '' && isIP(hostAddress) === 0) throw invalid(`invalid IP address: ${hostAddress}`);
    const [hostFirst, hostLast] = hostRange(binding.HostPort ?? '');
    wishes.push({ guest, hostAddress, hostFirst, hostLast });
  };
  for (const [text, list] of Object.entries(bindings ?? {})) {
    const guest = parseGuestPort(text);
    const entries = list ?? [];
    for (const binding of entries.length > 0 ? entries : [{}]) add(guest, binding);
  }
  if (publishAll)
    for (const text of Object.keys(exposed ?? {})) {
      const guest = parseGuestPort(text);
      if (!wishes.some((w) => w.guest.port === guest.port && w.guest.protocol === guest.protocol))
        add(guest, {});
    }
  return wishes;
}
