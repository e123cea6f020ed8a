import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { DrydockError } from '#common/errors';
import { nullLog } from '#common/log';
import type { CaptureOptions, HttpProxyConfig, LiveOptions, Network, PublishOptions } from '../index.ts';
import { checkCapture } from '../link/pcap.ts';
import type { Zone } from '../service/dns/names.ts';
import { BODY_BYTES_MAX } from './answer.ts';
import { CaptureControl, LIVE_CAPTURES_MAX } from './capture-control.ts';
import { type ControlServer, createControlServer } from './control.ts';
import { listenAt } from './endpoint.ts';
import { Forwarder, PORT_RANGE_MAX, parseEndpoint, parseSshTarget } from './forwarder.ts';
import { ProxyControl } from './vpnkit-http.ts';
import { waitPortRoute } from './wait-port.ts';

let folder: string;
let control: ControlServer;
let forwarder: Forwarder;
let zones: Zone[];
let published: (PublishOptions & { close: () => Promise<void> })[];
let guest: net.Server;
const plugged: net.Socket[] = [];
const captured: CaptureOptions[] = [];
const live: PassThrough[] = [];

/** The parts of a network that the API uses, played by the test; dialling reaches an echo server of this process. */
function fakeNetwork(): Network {
  return {
    name: 'n"1',
    gateway: '192.168.127.1',
    publish: async (options: PublishOptions) => {
      if (options.hostPort === 1)
        throw new DrydockError('ERR_PORT_PRIVILEGED', 'permission denied, use sudo');
      const port = { ...options, close: vi.fn(async () => {}) };
      published.push(port);
      return port;
    },
    addZone: async (zone: Zone) => void zones.push(zone),
    zones: async () => zones,
    leases: async () => [
      { address: '192.168.127.2', mac: '5a:94:ef:e4:0c:ee', name: undefined, state: 'bound', leftMs: 1 },
    ],
    switchTable: async () => [{ mac: '5a:94:ef:e4:0c:ee', port: 1 }],
    stats: async () => ({ bytesIn: 7, dns_pending: 1 }),
    flows: async () => [{ id: 1, protocol: 'tcp' }],
    denied: async () => [],
    useHttpProxy: async ({ http }: HttpProxyConfig) => {
      if (http === 'bad') throw new DrydockError('ERR_PROXY_UNKNOWN', 'it has no address');
    },
    capture: async (options: CaptureOptions) => {
      captured.push(options);
      const state = async () => ({ frames: captured.length, dropped: 0, failed: 'ENOSPC' });
      return { state, close: state };
    },
    captureLive: async ({ filter = '', snapLen }: LiveOptions) => {
      checkCapture({ ...(snapLen !== undefined && { snapLen }) });
      const stream = new PassThrough();
      stream.write(`frames of ${filter}`);
      live.push(stream);
      return { stream, state: async () => ({ frames: 1, dropped: 0, failed: undefined }) };
    },
    setPolicy: async ({ default: action }: { default: string }) => {
      if (action !== 'allow' && action !== 'deny') throw new DrydockError('ERR_POLICY_INVALID', 'no action');
    },
  } as Partial<Record<keyof Network, unknown>> as unknown as Network;
}

async function dial(_address: string, port: number): Promise<net.Socket> {
  if (port === 81) throw new DrydockError('ERR_GUEST_UNREACHABLE', 'nobody there');
  const socket = net.connect({
    port: (guest.address() as net.AddressInfo).port,
    host: '127.0.0.1',
    allowHalfOpen: true,
  });
  await once(socket, 'connect');
  return socket;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'control-'));
  zones = [];
  published = [];
  guest = net.createServer({ allowHalfOpen: true }, (socket) => {
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk;
    });
    socket.on('end', () => socket.end(`heard ${heard}`));
  });
  guest.listen(0, '127.0.0.1');
  await once(guest, 'listening');
  const network = fakeNetwork();
  forwarder = new Forwarder(network, dial);
  control = createControlServer({
    network,
    forwarder,
    dial,
    captures: new CaptureControl(network),
    proxies: new ProxyControl(network),
    gatewayMac: '5a:94:ef:e4:0c:dd',
    log: nullLog,
    connect: (stream) => plugged.push(stream),
  });
  await listenAt(control.server, `unix://${folder}/s`);
});
afterEach(async () => {
  await forwarder.close();
  for (const stream of [...plugged.splice(0), ...live.splice(0)]) stream.destroy();
  captured.length = 0;
  await control.close().catch(() => {});
  guest.close();
  rmSync(folder, { recursive: true });
});

async function call(method: string, path: string, body?: string): Promise<{ status: number; text: string }> {
  // Without its length Node sends no body with DELETE.
  const headers = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
  const request = http.request({ socketPath: `${folder}/s`, method, path, headers, agent: false });
  // Node's client may report EPIPE for a large body that was taken in full, after the answer has come.
  request.on('error', () => {});
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode!, text };
}
const post = (path: string, body: unknown) => call('POST', path, JSON.stringify(body));
const getJson = async (path: string): Promise<unknown> => JSON.parse((await call('GET', path)).text);

describe("gvproxy's paths", () => {
  test('/services/forwarder: exposed ports are listed by local address, and gone when they are unexposed', async () => {
    const web = { local: '127.0.0.1:8080', remote: '192.168.127.2:80', protocol: 'tcp' };
    const any = { local: ':53', remote: '192.168.127.2:53', protocol: 'udp' };
    expect(await post('/services/forwarder/expose', { local: web.local, remote: web.remote })).toEqual({
      status: 200,
      text: '',
    });
    expect(await post('/services/forwarder/expose', any)).toEqual({ status: 200, text: '' });
    expect(await getJson('/services/forwarder/all')).toEqual([web, any]);
    expect(published).toMatchObject([
      {
        protocol: 'tcp',
        hostAddress: '127.0.0.1',
        hostPort: 8080,
        guestAddress: '192.168.127.2',
        guestPort: 80,
      },
      { protocol: 'udp', hostAddress: '0.0.0.0', hostPort: 53 },
      { protocol: 'udp', hostAddress: '::', hostPort: 53 },
    ]);
    expect(await post('/services/forwarder/expose', web)).toEqual({
      status: 500,
      text: 'proxy already running for tcp on 127.0.0.1:8080\n',
    });
    expect(await post('/services/forwarder/unexpose', web)).toEqual({ status: 200, text: '' });
    expect(published[0]!.close).toHaveBeenCalledOnce();
    expect(await post('/services/forwarder/unexpose', web)).toEqual({
      status: 500,
      text: 'proxy not found\n',
    });
    expect(await getJson('/services/forwarder/all')).toEqual([any]);
  });

  test('a port that cannot be had is told, and can be asked for again', async () => {
    const wish = { local: '127.0.0.1:1', remote: '192.168.127.2:80' };
    for (let i = 0; i < 2; i++)
      expect(await post('/services/forwarder/expose', wish)).toEqual({
        status: 500,
        text: 'permission denied, use sudo\n',
      });
  });

  test.each([
    ['{', /JSON/],
    ['{}', /needs "local"/],
    ['{"local":"x","remote":"y"}', /"x" is no address and port/],
    ['{"local":":80","remote":":80"}', /":80" is no address and port/],
    ['{"local":":80","remote":"1.2.3.4:80","protocol":"sctp"}', /sctp/],
    ['null', /needs "local"/],
  ])('a body that is %s is 400', async (body, message) => {
    const { status, text } = await call('POST', '/services/forwarder/expose', body);
    expect({ status, text }).toEqual({ status: 400, text: expect.stringMatching(message) });
  });

  test('a body without end is refused', async () => {
    const { status } = await call('POST', '/services/forwarder/expose', `"${'x'.repeat(BODY_BYTES_MAX)}"`);
    expect(status).toBe(400);
  });

  test('other methods are "post only", other paths 404', async () => {
    expect(await call('GET', '/services/forwarder/expose')).toEqual({ status: 400, text: 'post only\n' });
    expect(await call('GET', '/nothing')).toEqual({ status: 404, text: '404 page not found\n' });
  });

  test('/services/dns: zones go in as Go writes them, and come out so', async () => {
    const zone = {
      Name: 'crc.testing.',
      Records: [
        { Name: 'api', IP: '10.0.0.1' },
        { Regexp: '^x.*', IP: '10.0.0.2' },
      ],
      DefaultIP: '10.0.0.9',
    };
    expect(await post('/services/dns/add', zone)).toEqual({ status: 200, text: '' });
    zones[0]!.name = 'crc.testing';
    expect(await getJson('/services/dns/all')).toEqual([zone]);
    expect((await post('/services/dns/add', { Name: 'x.', Records: [{ Name: 'a' }] })).text).toMatch(
      /has no IP/,
    );
    expect(
      (await post('/services/dns/add', { Name: 'x.', Records: [{ Regexp: '(', IP: '1.2.3.4' }] })).status,
    ).toBe(400);
    expect((await post('/services/dns/add', [])).status).toBe(400);
  });

  test('/leases and /cam', async () => {
    const leases = { '192.168.127.1': '5a:94:ef:e4:0c:dd', '192.168.127.2': '5a:94:ef:e4:0c:ee' };
    expect(await getJson('/leases')).toEqual(leases);
    expect(await getJson('/services/dhcp/leases')).toEqual(leases);
    expect(await getJson('/cam')).toEqual({ '5a:94:ef:e4:0c:ee': 1 });
    expect(await getJson('/stats')).toMatchObject({ bytesIn: 7 });
  });

  test("/tunnel answers OK without a status line and is then the guest's port, with half-close", async () => {
    const client = net.connect({ path: `${folder}/s`, allowHalfOpen: true });
    client.end('GET /tunnel?ip=192.168.127.2&port=80 HTTP/1.1\r\nHost: x\r\n\r\n');
    let heard = '';
    for await (const chunk of client) heard += chunk;
    expect(heard).toBe('OKheard ');
    expect((await call('GET', '/tunnel?port=80')).text).toBe('ip is mandatory\n');
    expect(await call('GET', '/tunnel?ip=192.168.127.2&port=81')).toEqual({
      status: 500,
      text: 'nobody there\n',
    });
  });

  test("lima's /extension/wait_port answers once the port is open, or when its time is over", async () => {
    expect((await call('GET', '/extension/wait_port?ip=192.168.127.2&port=80')).status).toBe(200);
    expect(await call('GET', '/extension/wait_port?ip=192.168.127.2&port=81&timeout=0')).toMatchObject({
      status: 408,
    });
    for (const query of ['ip=x&port=80', 'ip=192.168.127.2&port=0', 'ip=192.168.127.2&port=80&timeout=x'])
      expect((await call('GET', `/extension/wait_port?${query}`)).status).toBe(400);
    let tries = 0;
    const { answer } = waitPortRoute(async () => {
      if (++tries < 3) throw new Error('nobody there');
      return new net.Socket();
    }, 1);
    expect(await answer(undefined, new URLSearchParams('ip=10.0.0.1&port=22'))).toEqual({});
    expect(tries).toBe(3);
  });

  test('/tunnel carries what is sent after OK', async () => {
    const client = net.connect({ path: `${folder}/s`, allowHalfOpen: true });
    client.write('GET /tunnel?ip=192.168.127.2&port=80 HTTP/1.1\r\nHost: x\r\n\r\n');
    const [ok] = (await once(client, 'data')) as [Buffer];
    expect(ok.toString()).toBe('OK');
    client.end('words');
    let heard = '';
    for await (const chunk of client) heard += chunk;
    expect(heard).toBe('heard words');
  });
});

describe('POST /connect', () => {
  const request = 'POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n';

  test('gives the connection away with every byte, also when it comes in pieces with frames behind it', async () => {
    for (const pieces of [
      [`${request}frames`],
      ['POST /con', 'nect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\nframes'],
    ]) {
      const client = net.connect(`${folder}/s`);
      for (const piece of pieces) {
        client.write(piece);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await vi.waitFor(() => expect(plugged).toHaveLength(1));
      const [stream] = plugged.splice(0);
      let heard = '';
      stream!.on('data', (chunk) => {
        heard += chunk;
      });
      await vi.waitFor(() => expect(heard).toBe(`${request}frames`));
      client.destroy();
      stream!.destroy();
    }
  });

  test('other requests go to HTTP, also when their first bytes are alike', async () => {
    expect((await call('POST', '/nothing')).status).toBe(404);
    expect((await call('POST', '/con')).status).toBe(404);
    expect(plugged).toEqual([]);
  });

  test('a server without it knows no such path', async () => {
    const network = fakeNetwork();
    const captures = new CaptureControl(network);
    const proxies = new ProxyControl(network);
    const parts = { network, forwarder, captures, proxies, dial, gatewayMac: '', log: nullLog };
    const services = createControlServer(parts);
    await listenAt(services.server, `unix://${folder}/services`);
    const asked = http.request({
      socketPath: `${folder}/services`,
      method: 'POST',
      path: '/connect',
      agent: false,
    });
    asked.end();
    const [response] = (await once(asked, 'response')) as [http.IncomingMessage];
    response.resume();
    expect(response.statusCode).toBe(404);
    await services.close();
  });
});

test('a connection is gone when its client has gone, or when the server ends, whatever it was used for', async () => {
  const count = (): Promise<number> =>
    new Promise((resolve, reject) =>
      control.server.getConnections((error, n) => (error ? reject(error) : resolve(n))),
    );
  await call('GET', '/leases');
  const idle = net.connect(`${folder}/s`);
  const half = net.connect({ path: `${folder}/s`, allowHalfOpen: true });
  half.end('GET /leases HTTP/1.1\r\nHost: x\r\n\r\n').resume();
  const tunnel = net.connect(`${folder}/s`);
  tunnel.on('error', () => {}).write('GET /tunnel?ip=192.168.127.2&port=80 HTTP/1.1\r\nHost: x\r\n\r\n');
  await once(tunnel, 'data');
  idle.destroy();
  await vi.waitFor(async () => expect(await count()).toBe(1));
  await control.close();
  await once(tunnel, 'close');
});

describe("VPNKit's paths", () => {
  const port = { proto: 'tcp', out_ip: '127.0.0.1', out_port: 8080, in_ip: '172.17.0.2', in_port: 80 };

  test('/forwards: a port is exposed and unexposed, each as often as it is asked for', async () => {
    const body = JSON.stringify({ ...port, annotation: 'web' });
    for (const method of ['PUT', 'POST'])
      expect(await call(method, '/forwards/expose/port', body)).toEqual({ status: 200, text: '' });
    expect(published).toHaveLength(1);
    expect(await getJson('/forwards/list')).toEqual([{ ...port, annotation: 'web' }]);
    expect(await getJson('/services/forwarder/all')).toEqual([
      { local: '127.0.0.1:8080', remote: '172.17.0.2:80', protocol: 'tcp' },
    ]);
    expect((await call('GET', '/forwards/dump')).text).toBe(
      'tcp forward from 127.0.0.1:8080 to 172.17.0.2:80\n',
    );
    for (const method of ['DELETE', 'POST'])
      expect(await call(method, '/forwards/unexpose/port', body)).toEqual({ status: 200, text: '' });
    expect(published[0]!.close).toHaveBeenCalledOnce();
    expect(await getJson('/forwards/list')).toEqual([]);
  });

  test('what is empty is left out: no outer address is every one, IPv6 has no brackets', async () => {
    const any = { proto: 'udp', out_port: 53, in_ip: 'fd00::2', in_port: 53 };
    expect((await call('PUT', '/forwards/expose/port', JSON.stringify(any))).status).toBe(200);
    expect(published).toMatchObject([
      { hostAddress: '0.0.0.0' },
      { hostAddress: '::', guestAddress: 'fd00::2' },
    ]);
    expect(await getJson('/forwards/list')).toEqual([any]);
  });

  test.each([
    ['PUT', '/forwards/expose/port', { ...port, proto: 'unix' }, 400, /only be TCP or UDP/],
    ['PUT', '/forwards/expose/port', { ...port, out_port: 1 }, 400, /permission denied, use sudo/],
    ['PUT', '/forwards/expose/port', { ...port, in_ip: 'x' }, 400, /no address and port/],
    ['PUT', '/forwards/expose/port', { ...port, out: 1 }, 400, /out is not known here/],
    ['PUT', '/forwards/expose/pipe', { proto: 'unix', out_path: '/a', in_path: '/b' }, 400, /\/b is inside/],
    ['DELETE', '/forwards/unexpose/pipe', port, 400, /only have proto=Unix/],
    ['GET', '/forwards/expose/port', undefined, 405, /Method Not Allowed/],
  ])('%s %s of %j is %i with a message in JSON', async (method, path, body, status, message) => {
    const answer = await call(method, path, body && JSON.stringify(body));
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.text)).toEqual({ message: expect.stringMatching(message) });
    expect(forwarder.all()).toEqual([]);
  });

  test('/http_proxy.json: nothing at first, then what was set with the defaults', async () => {
    expect(await call('GET', '/http_proxy.json')).toEqual({ status: 404, text: '' });
    const settings = { http: 'proxy.lan:3128', exclude: '*.lan', transparent_http_ports: [80, 8080] };
    expect((await post('/http_proxy.json', settings)).status).toBe(200);
    expect(await getJson('/http_proxy.json')).toEqual({
      ...settings,
      transparent_https_ports: [443],
      allow_enabled: false,
      allow: [],
      allow_error_msg: expect.stringMatching(/forbidden by policy/),
    });
    const refused = await post('/http_proxy.json', { http: 'bad' });
    expect(refused).toEqual({ status: 400, text: '{"message":"it has no address"}\n' });
    expect((await post('/http_proxy.json', { https: 1 })).status).toBe(400);
    expect(await getJson('/http_proxy.json')).toMatchObject(settings);
  });
});

describe('captures', () => {
  test('one is begun with sizes as on the command line, shown with its failure, and ended', async () => {
    const body = { path: '/tmp/x.pcap', filter: 'tcp', size: '64K', files: 3, snaplen: 96 };
    const row = { path: '/tmp/x.pcap', filter: 'tcp', frames: 1, dropped: 0, failed: 'ENOSPC' };
    const begun = await post('/capture', body);
    expect({ ...begun, text: JSON.parse(begun.text) }).toEqual({ status: 200, text: row });
    expect(captured).toEqual([
      { path: '/tmp/x.pcap', filter: 'tcp', rotateBytes: 65_536, files: 3, snapLen: 96 },
    ]);
    expect(await getJson('/capture')).toEqual([row]);
    expect((await post('/capture', body)).status).toBe(500);
    expect(JSON.parse((await call('DELETE', '/capture')).text)).toEqual({
      frames: 1,
      dropped: 0,
      failed: 'ENOSPC',
    });
    expect(await getJson('/capture')).toEqual([]);
    expect(await call('DELETE', '/capture')).toEqual({ status: 500, text: 'No capture is running.\n' });
  });

  test.each([
    [{}, /needs "path"/],
    [{ path: '/tmp/x', filter: 'tcp prt 1' }, /prt/],
    [{ path: '/tmp/x', files: 2 }, /does nothing without a size/],
    [{ path: '/tmp/x', size: '1' }, /rotates at 65536 bytes or more/],
    [{ path: '/tmp/x', snaplen: 3 }, /14 to 262144 bytes of a frame/],
    [{ path: '/tmp/x', limit: 3 }, /limit is not known here/],
  ])('%j is refused with its reason', async (body, reason) => {
    const { status, text } = await post('/capture', body);
    expect({ status, text }).toEqual({ status: 400, text: expect.stringMatching(reason) });
    expect(captured).toEqual([]);
  });

  test('a live one is a stream that its reader ends; there are so many at once and no more', async () => {
    const responses = await Promise.all(
      Array.from({ length: LIVE_CAPTURES_MAX }, async () => {
        const request = http.get({
          socketPath: `${folder}/s`,
          path: '/capture/live?filter=icmp',
          agent: false,
        });
        return (await once(request, 'response'))[0] as http.IncomingMessage;
      }),
    );
    const [chunk] = (await once(responses[0]!, 'data')) as [Buffer];
    expect(chunk.toString()).toBe('frames of icmp');
    expect(responses[0]!.headers['content-type']).toBe('application/vnd.tcpdump.pcap');
    expect((await call('GET', '/capture/live')).status).toBe(500);
    for (const response of responses) response.destroy();
    await vi.waitFor(() => expect(live.every((stream) => stream.destroyed)).toBe(true));
    expect((await call('GET', '/capture/live?snaplen=1')).status).toBe(400);
  });
});

describe('our own paths', () => {
  test('/metrics is Prometheus text', async () => {
    const { text } = await call('GET', '/metrics');
    expect(text).toBe(
      '# TYPE drydock_net_bytes_in_total counter\ndrydock_net_bytes_in_total{network="n\\"1"} 7\n' +
        '# TYPE drydock_net_dns_pending gauge\ndrydock_net_dns_pending{network="n\\"1"} 1\n',
    );
  });

  test('/policy takes a policy, and refuses what is none', async () => {
    expect((await call('PUT', '/policy', '{"default":"deny"}')).status).toBe(200);
    expect((await call('PUT', '/policy', '{"default":"maybe"}')).status).toBe(400);
    expect((await call('PUT', '/policy', '{"rules":{}}')).status).toBe(400);
    expect(await getJson('/policy/denied')).toEqual([]);
    expect(await getJson('/flows')).toMatchObject([{ id: 1 }]);
  });

  test("a browser's page may not call it", async () => {
    const request = http.request({
      socketPath: `${folder}/s`,
      path: '/flows',
      headers: { Origin: 'http://evil.test' },
    });
    request.end();
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    response.resume();
    expect(response.statusCode).toBe(403);
  });
});

describe('unix sockets', () => {
  const wish = () => ({ local: `${folder}/fwd`, remote: 'tcp://192.168.127.2:80', protocol: 'unix' });

  test("an exposed socket is its owner's alone and leads to the guest", async () => {
    expect(await post('/services/forwarder/expose', wish())).toEqual({ status: 200, text: '' });
    expect(statSync(`${folder}/fwd`).mode & 0o777).toBe(0o600);
    const client = net.connect({ path: `${folder}/fwd`, allowHalfOpen: true });
    client.end('words');
    let heard = '';
    for await (const chunk of client) heard += chunk;
    expect(heard).toBe('heard words');
    expect(await post('/services/forwarder/unexpose', wish())).toEqual({ status: 200, text: '' });
    expect(existsSync(`${folder}/fwd`)).toBe(false);
  });

  test('a guest that refuses ends the connection', async () => {
    await post('/services/forwarder/expose', { ...wish(), remote: 'tcp://192.168.127.2:81' });
    const client = net.connect(`${folder}/fwd`);
    client.resume();
    await once(client, 'close');
  });

  test('a socket in use is refused with the remedy, one left behind is replaced', async () => {
    const other = net.createServer().listen(`${folder}/busy`);
    await once(other, 'listening');
    await expect(listenAt(http.createServer(), `unix://${folder}/busy`)).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_SOCKET_IN_USE' }),
    );
    other.close();
    await expect(listenAt(http.createServer(), `unix://${folder}/no/folder`)).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_SOCKET_FAILED' }),
    );
    await expect(listenAt(http.createServer(), 'vsock://:1024')).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_ENDPOINT_INVALID' }),
    );
  });
});

describe('ranges of ports', () => {
  test('are published port by port, as one row', async () => {
    const range = { local: '127.0.0.1:8000-8002', remote: '192.168.127.2:80-82', protocol: 'udp' } as const;
    expect(await forwarder.expose(range)).toEqual(range);
    expect(published.map(({ hostPort, guestPort }) => [hostPort, guestPort])).toEqual([
      [8000, 80],
      [8001, 81],
      [8002, 82],
    ]);
    await forwarder.unexpose('udp', range.local);
    expect(published.every(({ close }) => vi.mocked(close).mock.calls.length === 1)).toBe(true);
  });

  test('of which one port cannot be had leave nothing', async () => {
    const range = { local: ':1-2', remote: '192.168.127.2:80-81', protocol: 'tcp' } as const;
    await expect(forwarder.expose({ ...range, local: '127.0.0.1:1-2' })).rejects.toThrow(/use sudo/);
    published.length = 0;
    expect(forwarder.all()).toEqual([]);
  });

  test.each([
    ['127.0.0.1:8000-8002', '192.168.127.2:80', /8002 are 3 ports and .* are 1/],
    [`127.0.0.1:8000-${8000 + PORT_RANGE_MAX}`, `192.168.127.2:1-${1 + PORT_RANGE_MAX}`, /1024 at most/],
    ['127.0.0.1:8002-8000', '192.168.127.2:80-82', /no address and port/],
    ['127.0.0.1:0-2', '192.168.127.2:80-82', /no address and port/],
  ])('%s to %s is refused', async (local, remote, reason) => {
    await expect(forwarder.expose({ local, remote, protocol: 'tcp' })).rejects.toThrow(reason);
    expect(published).toEqual([]);
  });
});

test("gvproxy's remote over SSH is read, and one that cannot be kept is refused without its secret", () => {
  expect(parseSshTarget('ssh-tunnel://core@192.168.127.2:2222/run/podman/podman.sock?key=/k/id')).toEqual({
    address: '192.168.127.2',
    port: 2222,
    user: 'core',
    identity: '/k/id',
    dest: '/run/podman/podman.sock',
  });
  for (const text of [
    'ssh-tunnel://192.168.127.2/x?key=/k',
    'ssh-tunnel://u@host/x?key=/k',
    'ssh-tunnel://u@1.2.3.4/x',
  ])
    expect(() => parseSshTarget(text)).toThrow(/Give one like ssh-tunnel/);
  const secret = 'ssh-tunnel://u@1.2.3.4/x?key=/k&passphrase=secret';
  expect(() => parseSshTarget(secret)).toThrow(/^(?!.*secret).*passphrase.*agent/s);
});

test.each([
  ['127.0.0.1:80', '127.0.0.1', 80],
  [':80', '0.0.0.0', 80],
  ['[::1]:80', '::1', 80],
  ['localhost:80', '127.0.0.1', 80],
])('%s is %s port %i', (text, address, port) => {
  expect(parseEndpoint(text)).toEqual({ address, port });
});

test.each(['80', '127.0.0.1', '1.2.3.4:99999', 'host.example:80', ''])('"%s" is no endpoint', (text) => {
  expect(() => parseEndpoint(text)).toThrow(expect.objectContaining({ code: 'ERR_FORWARD_INVALID' }));
});
