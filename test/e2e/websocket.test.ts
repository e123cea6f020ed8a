/** Attaching over a WebSocket (RFC 6455): frames of both types in, one stream of both outputs back. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Docker, IMAGE } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker } from '../support/e2e/session.ts';

const SCRIPT = 'while read line; do echo "got $line"; done; echo ended';

interface Conversation {
  text: string;
  /** Whether each frame that came was binary. */
  binary: Set<boolean>;
  closeCode: number;
}

describeE2e('attach over a WebSocket', () => {
  let docker: Docker;
  beforeEach(() => {
    docker = sharedDocker();
  });
  afterEach(() => docker.removeAll());

  const create = async (extra: object = {}): Promise<string> => {
    const body = { Image: IMAGE, Cmd: ['sh', '-c', SCRIPT], OpenStdin: true, StdinOnce: true, ...extra };
    return JSON.parse((await docker.api('POST', '/containers/create', body)).body).Id;
  };

  /** Sends the frames once the container runs, and gathers all until the other side closes or `done` says so. */
  const talk = (url: string, frames: (string | Buffer)[], done: (text: string) => boolean, id: string) =>
    new Promise<Conversation>((resolve, reject) => {
      const client = new WebSocket(`ws+unix://${docker.address.socketPath}:${url}`);
      const told: Conversation = { text: '', binary: new Set(), closeCode: 0 };
      client.on('open', () => {
        docker.api('POST', `/containers/${id}/start`).then(() => {
          for (const frame of frames) client.send(frame);
        }, reject);
      });
      client.on('message', (data: Buffer, isBinary) => {
        told.text += data.toString();
        told.binary.add(isBinary);
        if (done(told.text)) client.close();
      });
      client.on('close', (code) => resolve({ ...told, closeCode: code }));
      client.on('error', reject);
    });

  it.each([
    ['v1.47', true],
    ['v1.27', false],
  ])('%s: text and binary frames are input; output frames are binary: %s', async (version, binary) => {
    const id = await create();
    const url = `/${version}/containers/${id}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1`;
    const frames = ['one\n', Buffer.from('two\n'), 'grüße\n'];
    const told = await talk(url, frames, (text) => text.includes('grüße'), id);
    expect(told.text).toBe('got one\ngot two\ngot grüße\n');
    expect([...told.binary]).toEqual([binary]);
    // The client's close is the end of the input.
    expect(JSON.parse((await docker.api('POST', `/containers/${id}/wait`)).body).StatusCode).toBe(0);
    expect(await docker.ok(['logs', id])).toContain('ended');
  });

  it('closes when the process ends', async () => {
    const id = await create({ Cmd: ['sh', '-c', 'echo bye; echo late >&2'] });
    const told = await talk(`/containers/${id}/attach/ws?stream=1&stdout=1&stderr=1`, [], () => false, id);
    expect(told.text.split('\n').sort()).toEqual(['', 'bye', 'late']);
    expect(told.closeCode).toBe(1005);
  });

  it('a message over the limit closes with 1009', async () => {
    const id = await create();
    const url = `/containers/${id}/attach/ws?stream=1&stdin=1`;
    expect((await talk(url, [Buffer.alloc(1024 * 1024 + 1)], () => false, id)).closeCode).toBe(1009);
  });

  it('answers what is no handshake with 400, and an unknown container with 404', async () => {
    const id = await create();
    const plain = await docker.api('GET', `/containers/${id}/attach/ws`);
    expect([plain.status, plain.body]).toEqual([
      400,
      '{"message":"not websocket protocol: send Upgrade: websocket"}',
    ]);
    const status = await new Promise((resolve) => {
      const client = new WebSocket(`ws+unix://${docker.address.socketPath}:/containers/none/attach/ws`);
      client.on('unexpected-response', (_, response) => resolve(response.statusCode));
      client.on('error', () => {});
    });
    expect(status).toBe(404);
  });
});
