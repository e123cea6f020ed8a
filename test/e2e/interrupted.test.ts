/** Clients that are killed in the middle of a load, save, push, pull or build: what they began is gone, and the daemon works. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { IMAGE, TestDaemon, until } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { dockerArchive, file } from '../support/images.ts';

const CONTEXT_FILES = 8_000;

describeE2e('a client that is killed', () => {
  let daemon: TestDaemon;
  let server: Server | undefined;
  let before: object;
  const at = (...path: string[]): string => join(daemon.address.dataRoot, ...path);
  const entries = (...path: string[]): string[] => readdirSync(at(...path)).sort();

  /** Everything that an operation on images may leave. */
  const left = (): object => ({
    blobs: entries('image/content/sha256'),
    ingest: entries('image/content/ingest').filter((name) => !name.startsWith('.tmp-')),
    images: entries('image/images'),
    layers: entries('overlay2/layers'),
    roots: entries('overlay2/roots'),
    builds: entries('build'),
  });
  const settles = (): Promise<void> =>
    until(async () => JSON.stringify(left()) === JSON.stringify(before), 'nothing is left of it', 20_000);

  /** Serves on loopback. @returns its address */
  async function serve(listener: RequestListener): Promise<string> {
    server = createServer(listener);
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  beforeAll(async () => {
    daemon = await TestDaemon.launch();
    before = left();
  });
  afterEach(() => {
    server?.closeAllConnections();
    server?.close();
    server = undefined;
  });
  afterAll(async () => {
    await daemon.stop();
    TestDaemon.forget(daemon.address);
  });

  it('while it loads leaves nothing of the image', async () => {
    const archive = dockerArchive([[file('a', Buffer.alloc(4 << 20, 1))]], { names: ['half'] });
    const cli = daemon.spawn(['load', '-q']);
    cli.stdin!.on('error', () => {});
    cli.stdin!.write(archive.subarray(0, archive.length / 2));
    await until(async () => entries('image/content/ingest').length > 0, 'the layer is being stored');
    cli.kill('SIGKILL');
    await until(async () => entries('image/content/ingest').length === 0, 'the stored half is gone');
    await settles();
    expect(await daemon.ok(['images', '-q', 'half'])).toBe('');
  });

  it('while it saves lets go of the image, which can be removed', async () => {
    const archive = dockerArchive([[file('a', Buffer.alloc(64 << 20, 1))]], { names: ['large'] });
    await daemon.ok(['load', '-q'], { input: archive });
    const cli = daemon.spawn(['save', 'large']);
    // What nobody reads any more fills the pipe and waits.
    await new Promise((resolve) => cli.stdout!.once('readable', resolve));
    cli.kill('SIGKILL');
    cli.stdout!.destroy();
    await daemon.ok(['rmi', 'large']);
    await settles();
  });

  it('while it pushes stops the upload', async () => {
    let isOpen = false;
    const registry = await serve((request, response) => {
      const { method, url = '' } = request;
      if (method === 'GET' && url === '/v2/') response.end('{}');
      else if (method === 'POST') response.writeHead(202, { Location: `${url}upload` }).end();
      else if (method === 'HEAD') response.writeHead(404).end();
      else {
        // Taken, and never answered.
        isOpen = true;
        request.resume();
        request.socket.once('close', () => (isOpen = false));
      }
    });
    const name = `${registry}/pushed`;
    await daemon.ok(['tag', IMAGE, name]);
    const cli = daemon.spawn(['push', name]);
    await until(async () => isOpen, 'the upload is under way');
    cli.kill('SIGKILL');
    await until(async () => !isOpen, 'the upload has ended');
    await daemon.ok(['rmi', name]);
    await settles();
  });

  it('while it builds stops the COPY of many files, and what it has copied goes', async () => {
    const context = join(daemon.address.dataRoot, '..', 'context');
    mkdirSync(join(context, 'many'), { recursive: true });
    for (let i = 0; i < CONTEXT_FILES; i++) writeFileSync(join(context, 'many', `f${i}`), '');
    writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY many /many\n');
    const cli = daemon.spawn(['build', '-q', context], { env: { DOCKER_BUILDKIT: '0' } });
    await until(async () => entries('overlay2/roots').length > 0, 'files are being copied', 60_000);
    cli.kill('SIGKILL');
    await settles();
  });
});
