/**
 * Options of the local driver (moby: volume/local/local_unix.go): a volume may be a file system of its own, mounted when
 * its first container starts and until its last one ends. Pure but for the look-up of a server's name.
 */
import { isIP } from 'node:net';
import { DrydockError } from '#common/errors';

const KNOWN = new Set(['type', 'o', 'device', 'size']);
const NEEDED: Readonly<Record<string, string[]>> = {
  device: ['type'],
  type: ['device'],
  o: ['device', 'type'],
};

function invalid(message: string): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', message);
}

/** Checks `DriverOpts` in dockerd's words. @throws ERR_BAD_PARAMETER */
export function checkVolumeOptions(options: Record<string, string>): void {
  for (const name of Object.keys(options))
    if (!KNOWN.has(name)) throw invalid(`invalid option: ${JSON.stringify(name)}`);
  if (options.size !== undefined && options.size !== '0')
    throw invalid('quota size requested but no quota support');
  for (const [name, others] of Object.entries(NEEDED))
    for (const other of others)
      if (options[name] !== undefined && options[other] === undefined)
        throw invalid(`missing required option: ${JSON.stringify(other)}`);
  if (options.type === 'cifs' && URL.canParse(`http:${options.device}`)) {
    const { port } = new URL(`http:${options.device}`);
    if (port !== '') throw invalid("port not allowed in CIFS device URL, include 'port' in 'o='");
  }
}

/** Whether a volume with these options has a file system to mount. */
export function needsMount(options: Record<string, string>): boolean {
  return Boolean(options.type || options.device);
}

/** The host folder that a volume shows, which must be shared as any other; undefined for other file systems. */
export function boundFolder(options: Record<string, string>): string | undefined {
  return options.o?.split(',').some((word) => word === 'bind' || word === 'rbind')
    ? options.device
    : undefined;
}

/** Device and mount options with the server's name replaced by its address, since the kernel takes no names. */
export async function withServerAddress(
  options: Record<string, string>,
  lookup: (name: string) => Promise<string>,
): Promise<{ device: string; words: string }> {
  const { type = '', device = '', o = '' } = options;
  if (type !== 'nfs' && type !== 'cifs') return { device, words: o };
  const address = async (name: string): Promise<string> => (isIP(name) === 0 ? await lookup(name) : name);
  const words = await Promise.all(
    o
      .split(',')
      .map(async (word) => (word.startsWith('addr=') ? `addr=${await address(word.slice(5))}` : word)),
  );
  const [, server = '', share = ''] = /^\/\/([^/]+)(\/.*)?$/.exec(device) ?? [];
  return {
    device: type === 'cifs' && server !== '' ? `//${await address(server)}${share}` : device,
    words: words.join(','),
  };
}

/** A text without the passwords of mount options. */
export function withoutPassword(text: string): string {
  return text.replace(/\bpassword=[^,\s]+/g, 'password=********');
}
