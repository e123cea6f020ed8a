/** What machines ask of the control API, over a network whose ports are only noted. */
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nullLog } from '#common/log';
import type { Network, PublishOptions } from '../index.ts';
import { Forwarder, GUEST_PORTS_MAX, PORT_RANGE_MAX } from './forwarder.ts';
import { CONNECTIONS_PER_GUEST_MAX, GUEST_CONNECTIONS_MAX, serveGuests } from './guest-control.ts';

describe("what a machine asks at the gateway's port 80", () => {
  /** The network's part of it: connections of machines, as they come. */
  let arrive: (stream: net.Socket, guest: string) => void;
  let machines: net.Server;
  let end: () => Promise<void>;
  let forwarder: Forwarder;
  let published: PublishOptions[];

  beforeEach(async () => {
    published = [];
    const publish = async (options: PublishOptions) => {
      published.push(options);
      return { ...options, close: async () => {} };
    };
    forwarder = new Forwarder({ publish } as unknown as Network, () => Promise.reject(new Error('nobody')));
    end = await serveGuests(
      {
        serve: async (_port, take) => {
          arrive = take;
          return { close: async () => {} };
        },
      },
      forwarder,
      nullLog,
    );
    machines = net.createServer({ allowHalfOpen: true }, (stream) => arrive(stream, '192.168.127.2'));
    machines.listen(0, '127.0.0.1');
    await once(machines, 'listening');
  });
  afterEach(async () => {
    await end();
    await forwarder.close();
    machines.close();
  });

  async function ask(path: string, body: object): Promise<[status: number, text: string]> {
    const { port } = machines.address() as net.AddressInfo;
    const request = http.request({ port, method: 'POST', path, agent: false });
    request.end(JSON.stringify(body));
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    let text = '';
    for await (const chunk of response) text += chunk;
    return [response.statusCode!, text];
  }

  test('a port of its own is published without its address, and taken back', async () => {
    const wish = { local: ':8080', remote: ':8080', protocol: 'tcp' };
    expect(await ask('/services/forwarder/expose', wish)).toEqual([200, '']);
    expect(
      published.map(({ hostAddress, guestAddress, guestPort }) => [hostAddress, guestAddress, guestPort]),
    ).toEqual([
      ['0.0.0.0', '192.168.127.2', 8080],
      ['::', '192.168.127.2', 8080],
    ]);
    expect(await ask('/services/forwarder/unexpose', wish)).toEqual([200, '']);
    expect(forwarder.all()).toEqual([]);
  });

  test("files of the host, what the host has published, and the rest of the API are not a machine's", async () => {
    await forwarder.expose({ local: '127.0.0.1:2222', remote: '192.168.127.2:22', protocol: 'tcp' });
    expect(
      await ask('/services/forwarder/expose', {
        local: '/run/x',
        remote: 'tcp://192.168.127.2:1',
        protocol: 'unix',
      }),
    ).toEqual([500, expect.stringMatching(/TCP and UDP ports only/)]);
    expect(await ask('/services/forwarder/unexpose', { local: '127.0.0.1:2222', protocol: 'tcp' })).toEqual([
      500,
      'proxy not found\n',
    ]);
    expect((await ask('/services/dns/add', {}))[0]).toBe(404);
    expect(forwarder.all()).toHaveLength(1);
  });

  test('so many connections and no more, of one and of all', () => {
    const come = (guest: string): net.Socket => {
      const stream = new net.Socket();
      arrive(stream, guest);
      return stream;
    };
    const taken = Array.from({ length: GUEST_CONNECTIONS_MAX }, (_, i) =>
      come(`192.168.127.${2 + Math.floor(i / CONNECTIONS_PER_GUEST_MAX)}`),
    );
    expect(taken.some((stream) => stream.destroyed)).toBe(false);
    expect(come('192.168.127.200').destroyed).toBe(true);
    taken[0]!.destroy();
    taken[CONNECTIONS_PER_GUEST_MAX]!.destroy();
    expect(come('192.168.127.4').destroyed).toBe(true);
  });

  test('so many ports and no more, of machines; the host goes on', async () => {
    for (let port = 10_000; port < 10_000 + GUEST_PORTS_MAX; port += PORT_RANGE_MAX) {
      const range = `${port}-${port + PORT_RANGE_MAX - 1}`;
      const wish = { local: `127.0.0.1:${range}`, remote: `:${range}` };
      expect(await ask('/services/forwarder/expose', wish)).toEqual([200, '']);
    }
    expect(await ask('/services/forwarder/expose', { local: ':9', remote: ':9' })).toEqual([
      500,
      expect.stringMatching(/may have 2048/),
    ]);
    await forwarder.expose({ local: '127.0.0.1:9', remote: '192.168.127.2:9', protocol: 'tcp' });
    const first = { local: `127.0.0.1:10000-${9999 + PORT_RANGE_MAX}` };
    expect(await ask('/services/forwarder/unexpose', first)).toEqual([200, '']);
    expect(await ask('/services/forwarder/expose', { local: ':9', remote: ':9' })).toEqual([200, '']);
  });
});
