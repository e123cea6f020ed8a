import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { DrydockError } from '#common/errors';
import { nullLog } from '#common/log';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { NinepClient } from '../../test/support/ninep-client.ts';
import type { Network, PublishOptions } from '../index.ts';
import { emitNinep, parseNinep } from '../wire/ninep.ts';
import { readOnly, folder as treeFolder } from './file-tree.ts';
import { Forwarder } from './forwarder.ts';
import { NINEP_FIDS_MAX, serveNinep } from './ninep-server.ts';
import { PortTree, parsePortText } from './vpnkit-ports.ts';

let place: string;
let path: string;
let end: () => Promise<void>;
let forwarder: Forwarder;
const closed: number[] = [];
const clients: NinepClient[] = [];

async function attach(version?: string): Promise<NinepClient> {
  const client = await NinepClient.attach(path, version);
  clients.push(client);
  return client;
}

beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), 'ninep-'));
  path = join(place, 's');
  closed.length = 0;
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await end();
  rmSync(place, { recursive: true });
});

describe('the tree of published ports', () => {
  beforeEach(async () => {
    const codes: Record<number, string> = { 80: 'ERR_PORT_IN_USE', 81: 'ERR_ADDRESS_NOT_AVAILABLE' };
    const network = {
      publish: async (options: PublishOptions) => {
        const code = codes[options.hostPort];
        if (code) throw new DrydockError(code, 'in our words');
        const hostPort = options.hostPort || 40_000;
        return { ...options, hostPort, close: async () => void closed.push(hostPort) };
      },
    } as unknown as Network;
    forwarder = new Forwarder(network, () => Promise.reject(new Error('nobody')), ['127.0.0.1', '::1']);
    const tree = new PortTree(forwarder);
    end = await serveNinep(path, () => tree.session(), nullLog);
  });

  /** Publishes as VPNKit's clients do; the open file holds it. */
  async function publish(
    client: NinepClient,
    name: string,
    text: string,
  ): Promise<{ fid: number; said: string }> {
    await client.makeFolder(name);
    const fid = await client.open(2, name, 'ctl');
    await client.write(fid, text);
    return { fid, said: (await client.readAll(fid)).toString() };
  }

  test('a port is published by a folder and a line, is a file while its ctl is open, and gone when that is closed', async () => {
    const client = await attach();
    const { fid, said } = await publish(client, 'web', 'tcp:127.0.0.1:0:tcp:172.17.0.2:80');
    expect(said).toBe('OK tcp:127.0.0.1:40000:tcp:172.17.0.2:80\n');
    const other = await attach('9P2000.u');
    expect(await other.list()).toEqual(['README', 'web']);
    expect((await other.readFile('web')).toString()).toBe('tcp:127.0.0.1:40000:tcp:172.17.0.2:80\n');
    expect(forwarder.all()).toEqual([{ protocol: 'tcp', local: '127.0.0.1:40000', remote: '172.17.0.2:80' }]);
    await client.clunk(fid);
    expect(await other.list()).toEqual(['README']);
    expect(closed).toEqual([40_000]);
  });

  test('a client that dies leaves neither ports nor folders; others keep theirs', async () => {
    const [client, other] = [await attach(), await attach()];
    await publish(client, 'a', 'udp:127.0.0.1:53:udp:172.17.0.2:53');
    await client.makeFolder('unfinished');
    await publish(other, 'b', 'tcp:::1:8080:tcp:fd00::2:80');
    expect(await other.list()).toEqual(['README', 'a', 'unfinished/', 'b']);
    client.close();
    await vi.waitFor(async () => expect(await other.list()).toEqual(['README', 'b']));
    expect(closed).toEqual([53]);
    expect((await other.readFile('b')).toString()).toBe('tcp:::1:8080:tcp:fd00::2:80\n');
  });

  test('its file can be removed, which ends the port', async () => {
    const [client, other] = [await attach(), await attach()];
    const { fid } = await publish(client, 'a', 'tcp:127.0.0.1:82:tcp:172.17.0.2:80');
    await other.remove('a');
    expect(closed).toEqual([82]);
    await client.clunk(fid);
    expect(closed).toEqual([82]);
    await expect(other.remove('README')).rejects.toThrow('permission denied');
  });

  test.each([
    ['tcp:127.0.0.1:80:tcp:172.17.0.2:80', 'Bind for 127.0.0.1:80 failed: port is already allocated'],
    ['tcp:127.0.0.1:81:tcp:172.17.0.2:80', 'listen tcp 127.0.0.1:81: bind: cannot assign requested address'],
    ['tcp:10.0.0.1:82:tcp:172.17.0.2:80', 'Bind for 10.0.0.1:82 failed: permission denied'],
    ['tcp:127.0.0.1:83:udp:172.17.0.2:80', expect.stringMatching(/^Failed to parse request/)],
    ['tcp:127.0.0.1:99999:tcp:172.17.0.2:80', expect.stringMatching(/^Failed to parse request/)],
    ['tcp:localhost:83:tcp:172.17.0.2:80', expect.stringMatching(/^port is not a proto:IP:port/)],
    [
      `unix:${Buffer.from('/a').toString('base64')}:unix:${Buffer.from('/b').toString('base64')}`,
      expect.stringMatching(/^The socket \/b is inside the machine/),
    ],
  ])('%s fails with its reason', async (text, reason) => {
    const client = await attach();
    const { fid, said } = await publish(client, 'a', text);
    expect(said.slice(0, 6)).toBe('ERROR ');
    expect(said.slice(6, -1)).toEqual(reason);
    await expect(client.write(fid, text)).rejects.toThrow('permission denied');
    expect(forwarder.all()).toEqual([]);
    await client.clunk(fid);
    expect(await client.list()).toEqual(['README']);
  });

  test('names that are taken or none are refused, and so is all that the tree is not for', async () => {
    const client = await attach();
    await client.makeFolder('a');
    await expect(client.makeFolder('a')).rejects.toThrow('file exists');
    for (const name of ['', '.', '..', 'a/b', 'x'.repeat(256)])
      await expect(client.makeFolder(name)).rejects.toThrow('illegal name');
    await expect(client.walk('nobody')).rejects.toThrow('file not found');
    await expect(client.open(1, 'README')).rejects.toThrow('permission denied');
    await expect(client.clunk(99)).rejects.toThrow('fid not found');
    const fid = await client.open(0, 'a', 'ctl');
    expect((await client.readAll(fid)).toString()).toMatch(/^ERROR no request received/);
  });
});

describe('the server', () => {
  beforeEach(async () => {
    const files = Array.from({ length: 50 }, (_, i) => readOnly(`file${i}`, async () => `${i}`));
    const root = treeFolder(
      '/',
      treeFolder('deep', treeFolder('er', ...files)),
      readOnly('big', async () => 'x'.repeat(100_000)),
    );
    end = await serveNinep(path, () => ({ root }), nullLog);
  });

  test('walks down and up, lists a folder in parts, and reads what is longer than a message', async () => {
    const client = await attach();
    expect(await client.list('deep', '..', 'deep', 'er')).toEqual(
      Array.from({ length: 50 }, (_, i) => `file${i}`),
    );
    expect(await client.list('..', '..')).toEqual(['deep/', 'big']);
    expect((await client.readFile('big')).length).toBe(100_000);
    // walk(5): what is found before a name that is not is told, and makes no fid.
    await expect(client.walk('deep', 'nobody')).rejects.toThrow('file not found');
  });

  test('a client knows so many files at once and no more', async () => {
    const client = await attach();
    for (let i = 1; i < NINEP_FIDS_MAX; i++) await client.walk();
    await expect(client.walk()).rejects.toThrow('too many open files');
    await client.clunk(1);
    await client.walk();
  });

  test('a message of an impossible size ends its connection, and no other', async () => {
    const [client, other] = [await attach(), await attach()];
    client.socket.write(Buffer.from([255, 255, 255, 255, 100, 0, 0]));
    await vi.waitFor(() => expect(client.socket.destroyed || client.socket.readableEnded).toBe(true));
    expect(await other.list()).toEqual(['deep/', 'big']);
  });

  test('whatever is asked, each message has one answer and the server lives', async () => {
    const client = await attach();
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 255 }),
        fc.uint8Array({ maxLength: 60 }),
        async (type, body) => {
          const message = emitNinep(type, 7, body);
          expect([type + 1, 107]).toContain((await client.exchange(message)).type);
        },
      ),
      { numRuns: inputs(300) },
    );
    expect(await (await attach()).list()).toEqual(['deep/', 'big']);
  });
});

test('any bytes parse to a request or to nothing', () => {
  end = async () => {};
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const request = parseNinep(bytes, 0, bytes.length);
      expect(request === undefined || request.data.length <= bytes.length).toBe(true);
    }),
  );
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parsePortText(text);
      } catch (error) {
        expect(error).toBeInstanceOf(DrydockError);
      }
    }),
  );
});
