/**
 * What VPNKit shows of itself, by the names it has there (the tree of its src/hostnet/slirp.ml): a folder by 9P at
 * `--introspection`, and all of it as a tar archive for each connection to `--diagnostics`.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { Log } from '#common/log';
import type { FlowInfo } from '../flow/inside.ts';
import type { Network } from '../index.ts';
import { CaptureRing } from './capture-ring.ts';
import { folder, readOnly, type TreeFolder } from './file-tree.ts';
import { listenUnix } from './forwarder.ts';

/** Captures that are kept, as VPNKit's: what of, how many bytes, and how many of each frame. */
const RINGS = [
  { name: 'all.pcap', filter: '', bytesMax: 256 * 1024, snapLen: undefined },
  { name: 'dns.pcap', filter: 'port 53', bytesMax: 256 * 1024, snapLen: 1500 },
  { name: 'ntp.pcap', filter: 'udp port 123', bytesMax: 64 * 1024, snapLen: 1500 },
  { name: 'icmp.pcap', filter: 'icmp or icmp6', bytesMax: 8 * 1024, snapLen: 1500 },
  { name: 'http_proxy.pcap', filter: 'tcp port 3128', bytesMax: 1024 * 1024, snapLen: 1500 },
] as const;

/** Bytes kept of frames in `all.pcap` unless `--pcap-snaplen` says otherwise; VPNKit's. */
const SNAP_LEN_DEFAULT = 128;
/** Archives that are being sent at once. */
const DIAGNOSTICS_MAX = 16;
const BLOCK_LEN = 512;

/** The tree, and the end of what it keeps. */
export interface Introspection {
  readonly root: TreeFolder;
  close(): void;
}

/** Begins to keep what the tree shows. @throws DrydockError as Network.captureLive() does */
export async function introspect(
  network: Network,
  snapLenAll: number = SNAP_LEN_DEFAULT,
): Promise<Introspection> {
  const rings: CaptureRing[] = [];
  const captures = [];
  for (const { name, filter, bytesMax, snapLen } of RINGS) {
    const ring = new CaptureRing(bytesMax);
    await ring.start(network, filter, snapLen ?? snapLenAll);
    rings.push(ring);
    captures.push(readOnly(name, async () => ring.content()));
  }
  const flows = async (): Promise<FlowInfo[]> => network.flows();
  const root = folder(
    '/',
    readOnly('connections', async () => lines((await flows()).map(describeConnection))),
    folder('capture', ...captures),
    readOnly('flows', async () =>
      lines((await flows()).filter(({ protocol }) => protocol === 'tcp').map(describeFlow)),
    ),
    readOnly('endpoints', async () => lines(describeEndpoints(await flows()))),
    readOnly('ports', async () =>
      lines((await network.leases()).map(({ address, mac, state }) => `${address} ${mac} ${state}`)),
    ),
  );
  return {
    root,
    close: () => {
      for (const ring of rings) ring.close();
    },
  };
}

function lines(rows: string[]): string {
  return rows.map((row) => `${row}\n`).join('');
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)}s`;

function describeConnection({ protocol, initiator, guest, target, state }: FlowInfo): string {
  const [from, to] = initiator === 'guest' ? [guest, target] : [target, guest];
  return `${protocol} ${from} -> ${to} ${state}`;
}

function describeFlow({ guest, target, state, idleMs }: FlowInfo): string {
  return `${guest} -> ${target} socket = ${state} last_active = ${seconds(idleMs)}`;
}

/** One line for each pair of addresses between which there are connections. */
function describeEndpoints(flows: FlowInfo[]): string[] {
  const idle = new Map<string, number>();
  const address = (endpoint: string): string => endpoint.replace(/:\d+$/, '');
  for (const { protocol, guest, target, idleMs } of flows) {
    if (protocol !== 'tcp') continue;
    const pair = `${address(target)} <-> ${address(guest)}`;
    idle.set(pair, Math.min(idleMs, idle.get(pair) ?? Number.POSITIVE_INFINITY));
  }
  return [...idle].map(([pair, ms]) => `${pair} last_active_time = ${seconds(ms)}`);
}

/**
 * Sends the tree as a tar archive to whoever connects.
 * @returns ends it. @throws DrydockError as listenUnix() does
 */
export async function serveDiagnostics(
  path: string,
  root: TreeFolder,
  log: Log,
): Promise<() => Promise<void>> {
  const clients = new Set<Socket>();
  const server: Server = createServer((socket) => {
    clients.add(socket);
    socket.on('error', () => socket.destroy()).on('close', () => clients.delete(socket));
    archive(root)
      .then((bytes) => socket.end(bytes))
      .catch((error: unknown) => {
        log.warn({ err: error }, 'diagnostics failed');
        socket.destroy();
      });
  });
  server.maxConnections = DIAGNOSTICS_MAX;
  await listenUnix(server, path);
  return async () => {
    server.close();
    for (const client of clients) client.destroy();
  };
}

/** The files of a tree as POSIX ustar (pax(1), "ustar Interchange Format"). */
export async function archive(root: TreeFolder): Promise<Uint8Array> {
  const modifiedAt = Math.floor(Date.now() / 1000);
  const parts: Uint8Array[] = [];
  const put = async (node: TreeFolder, prefix: string): Promise<void> => {
    for (const entry of node.entries()) {
      const name = prefix + entry.name;
      if (entry.kind === 'folder') {
        await put(entry, `${name}/`);
        continue;
      }
      const content = await entry.open().read();
      const padding = (BLOCK_LEN - (content.length % BLOCK_LEN)) % BLOCK_LEN;
      parts.push(tarHeader(name, content.length, modifiedAt), content, new Uint8Array(padding));
    }
  };
  await put(root, '');
  parts.push(new Uint8Array(2 * BLOCK_LEN));
  return Buffer.concat(parts);
}

function tarHeader(name: string, size: number, modifiedAt: number): Uint8Array {
  const block = Buffer.alloc(BLOCK_LEN);
  const octal = (value: number, at: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, '0'), at, 'latin1');
  };
  block.write(name, 0, 100, 'latin1');
  octal(0o644, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(size, 124, 11);
  octal(modifiedAt, 136, 11);
  // The sum counts itself as spaces.
  block.fill(' ', 148, 156);
  block.write('0', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  octal(sum, 148, 6);
  block[154] = 0;
  return block;
}
