/** Attach, exec, logs and wait over a real unix socket: what happens on the wire after HTTP has ended. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { serveUpgrades } from '../../daemon/api/hijack.ts';
import { eventually, type FakeDaemon, fakeDaemon } from '../support/daemon/fakes.ts';

let daemon: FakeDaemon;
let server: Server;
let path: string;
const clients: Socket[] = [];

beforeEach(async () => {
  daemon = await fakeDaemon();
  server = createServer((request, response) => daemon.app.routing(request, response));
  serveUpgrades(server, daemon.app);
  path = join(daemon.folder, 's');
  server.listen(path);
  await once(server, 'listening');
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  server.close();
  server.closeAllConnections();
  await daemon.close();
});

/** A raw client: what it has received, and whether the other side has ended. */
class Client {
  readonly socket: Socket;
  received: Buffer = Buffer.alloc(0);
  ended = false;

  constructor(text: string) {
    this.socket = connect({ path, allowHalfOpen: true });
    clients.push(this.socket);
    this.socket.on('data', (chunk) => {
      this.received = Buffer.concat([this.received, chunk]);
    });
    this.socket.on('end', () => {
      this.ended = true;
    });
    this.socket.on('error', () => {});
    this.socket.write(text);
  }

  /** The bytes behind the response's headers. */
  get body(): Buffer {
    const at = this.received.indexOf('\r\n\r\n');
    return at < 0 ? Buffer.alloc(0) : this.received.subarray(at + 4);
  }

  get head(): string {
    return this.received.toString('latin1').split('\r\n\r\n')[0]!;
  }

  async sees(text: string): Promise<void> {
    await eventually(() => this.received.includes(text), `received ${text}, have ${this.received}`);
  }

  async over(): Promise<void> {
    await eventually(() => this.ended, 'the daemon has ended the stream');
  }
}

const UPGRADE = 'Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n';

function upgrade(url: string, body = '', rest = ''): Client {
  const type = body === '' ? 'text/plain' : 'application/json';
  return new Client(
    `POST ${url} HTTP/1.1\r\n${UPGRADE}Content-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}${rest}`,
  );
}

async function post(url: string, body?: object): Promise<Record<string, never>> {
  const response = await daemon.app.inject({ method: 'POST', url, ...(body && { payload: body }) });
  if (response.statusCode >= 400) throw new Error(response.body);
  return response.body === '' ? {} : response.json();
}

/** Makes a container and gives the process that its start will have. */
async function create(config: object = {}): Promise<string> {
  return (await post('/containers/create', { Image: 'test', ...config })).Id!;
}

function frame(stream: number, text: string): Buffer {
  const header = Buffer.from([stream, 0, 0, 0, 0, 0, 0, 0]);
  header.writeUInt32BE(Buffer.byteLength(text), 4);
  return Buffer.concat([header, Buffer.from(text)]);
}

const ATTACH_ALL = 'attach?stream=1&stdin=1&stdout=1&stderr=1';

describe('attach', () => {
  it('answers 101 with the type of frames, and frames each stream', async () => {
    const id = await create();
    const client = upgrade(`/v1.51/containers/${id}/${ATTACH_ALL}`);
    await client.sees('\r\n\r\n');
    expect(client.head.split('\r\n')).toEqual([
      'HTTP/1.1 101 UPGRADED',
      'Content-Type: application/vnd.docker.multiplexed-stream',
      'Connection: Upgrade',
      'Upgrade: tcp',
    ]);
    await post(`/containers/${id}/start`);
    const { process } = daemon.runtime.last;
    process!.stdout.write('out');
    await client.sees('out');
    process!.stderr!.write('err');
    await client.sees('err');
    process!.exit(0);
    await client.over();
    expect(client.body).toEqual(Buffer.concat([frame(1, 'out'), frame(2, 'err')]));
  });

  it.each([
    ['an API before 1.42', '/v1.41', {}],
    ['a terminal', '', { Tty: true }],
  ])('%s gets the raw type', async (_, prefix, config) => {
    const id = await create(config);
    const client = upgrade(`${prefix}/containers/${id}/${ATTACH_ALL}`);
    await client.sees('application/vnd.docker.raw-stream');
  });

  it('without the upgrade headers it is 200 and the same frames', async () => {
    const id = await create();
    const client = new Client(
      `POST /containers/${id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n`,
    );
    await client.sees('200 OK');
    await post(`/containers/${id}/start`);
    daemon.runtime.last.process!.stdout.write('plain');
    await client.sees('plain');
    daemon.runtime.last.process!.exit(0);
    await client.over();
    expect(client.head).not.toMatch(/chunked/i);
    expect(client.body).toEqual(frame(1, 'plain'));
  });

  it('the client’s end of input is the container’s, and output flows on after it', async () => {
    const id = await create({ OpenStdin: true, StdinOnce: true });
    const client = upgrade(`/containers/${id}/${ATTACH_ALL}`, '', 'early ');
    await client.sees('101');
    client.socket.end('late');
    await post(`/containers/${id}/start`);
    const process = daemon.runtime.last.process!;
    let input = '';
    process.stdin!.on('data', (chunk) => (input += chunk));
    await once(process.stdin!, 'end');
    expect(input).toBe('early late');
    process.stdout.write('answer');
    await client.sees('answer');
    expect(client.ended).toBe(false);
    process.exit(0);
    await client.over();
  });

  it('an input that ends before the start, without a byte, is the container’s too', async () => {
    const id = await create({ OpenStdin: true, StdinOnce: true });
    const client = upgrade(`/containers/${id}/${ATTACH_ALL}`);
    await client.sees('101');
    client.socket.end();
    // The daemon has seen the end once it has answered what came after it.
    await post(`/containers/${id}/rename?name=later`);
    await post(`/containers/${id}/start`);
    const process = daemon.runtime.last.process!;
    process.stdin!.resume();
    await once(process.stdin!, 'end');
    process.exit(0);
    await client.over();
  });

  it('a client that hangs up leaves the container and other clients alone', async () => {
    const id = await create();
    const leaver = upgrade(`/containers/${id}/${ATTACH_ALL}`);
    const stayer = upgrade(`/containers/${id}/${ATTACH_ALL}`);
    await Promise.all([leaver.sees('101'), stayer.sees('101')]);
    await post(`/containers/${id}/start`);
    const process = daemon.runtime.last.process!;
    leaver.socket.destroy();
    for (let n = 0; n < 100; n++) process.stdout.write('x'.repeat(10_000));
    process.stdout.write('end');
    await stayer.sees('end');
    process.exit(0);
    await stayer.over();
  });

  it('the output of a container waits for a client that does not read, and for nobody once that has gone', async () => {
    const id = await create({ HostConfig: { LogConfig: { Type: 'none' } } });
    const slow = upgrade(`/containers/${id}/${ATTACH_ALL}`);
    await slow.sees('101');
    slow.socket.pause();
    await post(`/containers/${id}/start`);
    const process = daemon.runtime.last.process!;
    let accepted = true;
    let written = 0;
    while (accepted && written < 64 * 1024 * 1024) {
      accepted = process.stdout.write(Buffer.alloc(65536));
      written += 65536;
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(accepted).toBe(false);
    expect(written).toBeLessThan(8 * 1024 * 1024);
    slow.socket.destroy();
    await once(process.stdout, 'drain');
  });

  it('the detach keys end the attachment, not the container; what else is typed arrives', async () => {
    const id = await create({ Tty: true, OpenStdin: true });
    const client = upgrade(`/containers/${id}/${ATTACH_ALL}&detachKeys=ctrl-a,x`);
    await post(`/containers/${id}/start`);
    const process = daemon.runtime.last.process!;
    let input = '';
    process.stdin!.on('data', (chunk) => (input += chunk));
    client.socket.write('a\x01b\x01\x01');
    client.socket.write('x');
    await client.over();
    expect(input).toBe('a\x01b\x01');
    expect(daemon.services.context.containers.find(id).record.state.status).toBe('running');
    expect(daemon.services.context.events.past(0, Infinity, (e) => e.Action === 'detach')).toHaveLength(1);
  });

  it('errors are still HTTP, and the connection is closed after them', async () => {
    const client = upgrade('/containers/nobody/attach?stream=1');
    await client.over();
    expect(client.head).toMatch(/^HTTP\/1\.1 404 Not Found/);
    expect(JSON.parse(client.body.toString())).toEqual({ message: 'No such container: nobody' });
  });

  it('logs=1 replays what was written before', async () => {
    const id = await create();
    await post(`/containers/${id}/start`);
    const process = daemon.runtime.last.process!;
    process.stdout.write('before\n');
    await eventually(() => process.stdout.readableLength === 0, 'the log has it');
    const client = upgrade(`/containers/${id}/${ATTACH_ALL}&logs=1`);
    await client.sees('before');
    process.stdout.write('after\n');
    await client.sees('after');
    expect(client.body).toEqual(Buffer.concat([frame(1, 'before\n'), frame(1, 'after\n')]));
    process.exit(0);
    await client.over();
  });
});

describe('exec', () => {
  let id: string;
  beforeEach(async () => {
    id = await create();
    await post(`/containers/${id}/start`);
  });

  it('reads the JSON body that comes with the upgrade, cut anywhere, and then the stream behind it', async () => {
    const exec = (
      await post(`/containers/${id}/exec`, { Cmd: ['cat'], AttachStdin: true, AttachStdout: true })
    ).Id!;
    const body = JSON.stringify({ Detach: false, Tty: false });
    const whole = `POST /exec/${exec}/start HTTP/1.1\r\n${UPGRADE}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}typed`;
    const cut = whole.length - 'typed'.length - 5;
    const client = new Client(whole.slice(0, cut));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(daemon.runtime.last.execs).toHaveLength(0);
    client.socket.end(whole.slice(cut));
    await client.sees('101');
    await eventually(() => daemon.runtime.last.execs.length === 1, 'it runs');
    const process = daemon.runtime.last.execs[0]!;
    let input = '';
    process.stdin!.on('data', (chunk) => (input += chunk));
    await once(process.stdin!, 'end');
    expect(input).toBe('typed');
    process.stdout.write(input);
    process.exit(4);
    await client.over();
    expect(client.body).toEqual(frame(1, 'typed'));
    const inspected = (await daemon.app.inject(`/exec/${exec}/json`)).json();
    expect(inspected).toMatchObject({ Running: false, ExitCode: 4 });
  });

  it('a program that is not there is told in the stream, and by exit code 127', async () => {
    const exec = (await post(`/containers/${id}/exec`, { Cmd: ['nosuch'], AttachStdout: true })).Id!;
    const client = upgrade(`/exec/${exec}/start`, '{}');
    await client.over();
    expect(client.body.subarray(8).toString()).toMatch(
      /exec: "nosuch": executable file not found in \$PATH\r\n$/,
    );
    expect((await daemon.app.inject(`/exec/${exec}/json`)).json().ExitCode).toBe(127);
  });

  it('runs once; a second start and one in a stopped container are refused', async () => {
    const exec = (await post(`/containers/${id}/exec`, { Cmd: ['true'] })).Id!;
    await post(`/exec/${exec}/start`, { Detach: true });
    const again = await daemon.app.inject({
      method: 'POST',
      url: `/exec/${exec}/start`,
      payload: { Detach: true },
    });
    expect(again.statusCode).toBe(409);
    const other = (await post(`/containers/${id}/exec`, { Cmd: ['true'] })).Id!;
    await post(`/containers/${id}/kill`);
    const late = upgrade(`/exec/${other}/start`, '{}');
    await late.over();
    expect(late.head).toMatch(/^HTTP\/1\.1 409/);
  });

  it('a malformed body with an upgrade is 400', async () => {
    const exec = (await post(`/containers/${id}/exec`, { Cmd: ['true'] })).Id!;
    const client = upgrade(`/exec/${exec}/start`, '{nonsense');
    await client.over();
    expect(client.head).toMatch(/^HTTP\/1\.1 400/);
    expect(client.body.toString()).toMatch(/invalid JSON/);
  });
});

describe('wait', () => {
  it('sends its headers before the container is even started', async () => {
    const id = await create();
    const client = new Client(`POST /containers/${id}/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n`);
    await client.sees('200 OK');
    expect(client.body.length).toBe(0);
    await post(`/containers/${id}/start`);
    daemon.runtime.last.process!.exit(9);
    await client.sees('"StatusCode":9');
  });
});
