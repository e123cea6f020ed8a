/**
 * VPNKit's `--port`: ports are published by making a folder, writing one line to the file `ctl` in it, and reading the answer
 * (vpnkit's src/ofs/active_list.ml and src/hostnet/forward.ml). The port stays as long as the file by which it was asked for is
 * open, so a client that dies leaves none. Its folder becomes a file that tells what it is.
 */
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { parseAddress } from '../wire/address.ts';
import { fileError, type OpenFile, readOnly, type TreeFolder, type TreeNode } from './file-tree.ts';
import type { Exposed, Forwarder } from './forwarder.ts';
import type { TreeSession } from './ninep-server.ts';

/** Folders and ports of one tree at once. */
export const PORT_ENTRIES_MAX = 4096;
const NAME_BYTES_MAX = 255;

const FORMS = `tcp:<local IP>:<local port>:tcp:<remote IP>:<remote port>
udp:<local IP>:<local port>:udp:<remote IP>:<remote port>
unix:<base64-encoded local path>:unix:<base64-encoded remote path>`;

const README = `Published ports
---------------

Every published port is a file here, which says what it is. To end one, remove its file.

To publish another, make a folder with a name that is not there yet, open the
file \`ctl\` in it, and write one text of the form

${FORMS}

Then read the file. It says either

- \`OK <details>\`: the port is published; a local port of 0 has become a real one.
- \`ERROR <message>\`: it is not, and why.

The folder has become a file of the same name. The port is published until
\`ctl\` is closed.
`;

/** A text as written to `ctl`. @throws DrydockError ERR_FILE_REFUSED with VPNKit's words */
export function parsePortText(text: string): Exposed {
  const unix = /^unix:([^:]*):unix:([^:]*)$/.exec(text);
  if (unix) return { protocol: 'unix', local: decodePath(unix[1]!), remote: decodePath(unix[2]!) };
  const match = /^(tcp|udp):(.+):(\d{1,5}):(tcp|udp):(.+):(\d{1,5})$/i.exec(text);
  const [, protocol = '', localIp = '', localPort, other = '', remoteIp = '', remotePort] = match ?? [];
  const isPort = (port: string | undefined): boolean => Number(port) <= 65_535;
  if (!match || protocol.toLowerCase() !== other.toLowerCase() || !isPort(localPort) || !isPort(remotePort))
    throw fileError(`Failed to parse request [${text}], expected ${FORMS}`);
  return {
    protocol: protocol.toLowerCase() as 'tcp' | 'udp',
    local: endpoint(localIp, localPort!),
    remote: endpoint(remoteIp, remotePort!),
  };
}

function endpoint(ip: string, port: string): string {
  if (!parseAddress(ip)) throw fileError(`port is not a proto:IP:port or unix:path: '${ip}:${port}'`);
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function decodePath(text: string): string {
  const path = Buffer.from(text, 'base64').toString('utf8');
  if (!path.startsWith('/') || path.includes('\0'))
    throw fileError(`port is not a proto:IP:port or unix:path: 'unix:${text}'`);
  return path;
}

/** The text of what is exposed, as VPNKit has it. */
export function formatPortText({ protocol, local, remote }: Exposed): string {
  const bare = (text: string): string => text.replace(/^\[(.*)\]/, '$1');
  return `${protocol}:${bare(local)}:${protocol}:${bare(remote)}`;
}

/** Exposes, or says why not in VPNKit's words where it has some. */
async function exposeByText(forwarder: Forwarder, text: string): Promise<Exposed> {
  const wish = parsePortText(text);
  if (wish.protocol === 'unix')
    throw fileError(
      `The socket ${wish.remote} is inside the machine, whose files its wire does not reach; publish a port of it`,
    );
  try {
    return await forwarder.expose(wish);
  } catch (error) {
    const code = errorCode(error);
    const place = wish.local.replace(/^\[(.*)\]/, '$1');
    if (code === 'ERR_PORT_IN_USE' || code === 'ERR_FORWARD_EXISTS')
      throw fileError(`Bind for ${place} failed: port is already allocated`);
    if (code === 'ERR_ADDRESS_NOT_AVAILABLE')
      throw fileError(`listen ${wish.protocol} ${place}: bind: cannot assign requested address`);
    if (code === 'ERR_PORT_PRIVILEGED' || code === 'ERR_FORWARD_FORBIDDEN')
      throw fileError(`Bind for ${place} failed: permission denied`);
    throw error;
  }
}

/** One folder that was made, or the port that it has become. */
interface Entry {
  readonly name: string;
  readonly node: TreeFolder;
  row: Exposed | undefined;
  /** The file that it is shown as, once it is a port. */
  file: TreeNode | undefined;
  /** What `ctl` says. */
  result: string | undefined;
  isGone: boolean;
}

/** The tree; connections share it. */
export class PortTree {
  readonly #forwarder: Forwarder;
  readonly #entries = new Map<string, Entry>();
  readonly #readme: TreeNode = readOnly('README', async () => README);

  constructor(forwarder: Forwarder) {
    this.#forwarder = forwarder;
  }

  /** What one connection sees; what it has made and not finished goes with it. */
  session(): TreeSession {
    const made = new Set<Entry>();
    const root: TreeFolder = {
      kind: 'folder',
      name: '/',
      entries: () => [this.#readme, ...[...this.#entries.values()].map(({ node, file }) => file ?? node)],
      makeFolder: (name) => {
        const entry = this.#make(name);
        made.add(entry);
        return entry.node;
      },
    };
    return {
      root,
      end: async () => {
        for (const entry of made) if (!entry.row) await this.#remove(entry);
      },
    };
  }

  #make(name: string): Entry {
    if (name === '' || /[/\0]|^\.{1,2}$/.test(name) || Buffer.byteLength(name) > NAME_BYTES_MAX)
      throw fileError('illegal name');
    if (name === 'README' || this.#entries.has(name)) throw fileError('file exists');
    if (this.#entries.size >= PORT_ENTRIES_MAX) throw fileError('too many ports');
    const ctl: TreeNode = {
      kind: 'file',
      name: 'ctl',
      isWritable: true,
      open: () => this.#openControl(entry),
    };
    const node: TreeFolder = {
      kind: 'folder',
      name,
      entries: () => [ctl],
      remove: () => this.#remove(entry),
    };
    const entry: Entry = { name, node, row: undefined, file: undefined, result: undefined, isGone: false };
    this.#entries.set(name, entry);
    return entry;
  }

  #openControl(entry: Entry): OpenFile {
    let isHolder = false;
    return {
      read: async () => Buffer.from(entry.result ?? 'ERROR no request received. Please read the README.\n'),
      write: async (data) => {
        if (entry.result !== undefined) throw fileError('permission denied');
        isHolder = true;
        // Taken before the first wait: a second write is refused meanwhile.
        entry.result = 'ERROR the request is being worked on\n';
        await this.#configure(entry, Buffer.from(data).toString('utf8').trim());
      },
      close: async () => {
        // Another's look at the file ends nothing.
        if (isHolder) await this.#remove(entry);
      },
    };
  }

  async #configure(entry: Entry, text: string): Promise<void> {
    try {
      const row = await exposeByText(this.#forwarder, text);
      entry.row = row;
      entry.result = `OK ${formatPortText(row)}\n`;
      entry.file = {
        ...readOnly(entry.name, async () => `${formatPortText(row)}\n`),
        remove: () => this.#remove(entry),
      };
      if (entry.isGone) await this.#unexpose(row);
    } catch (error) {
      if (!(error instanceof DrydockError)) throw error;
      entry.result = `ERROR ${errorMessage(error)}\n`;
    }
  }

  async #remove(entry: Entry): Promise<void> {
    if (entry.isGone) return;
    entry.isGone = true;
    this.#entries.delete(entry.name);
    if (entry.row) await this.#unexpose(entry.row);
  }

  async #unexpose({ protocol, local }: Exposed): Promise<void> {
    await this.#forwarder.unexpose(protocol, local).catch((error: unknown) => {
      // Somebody has ended it by another way.
      if (errorCode(error) !== 'ERR_FORWARD_UNKNOWN') throw error;
    });
  }
}
