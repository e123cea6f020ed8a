/** Clients that are killed in the middle of a load, save, push, pull or build: what they began is gone, and the daemon works. */
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { IMAGE, TestDaemon, until } from '../support/e2e/daemon.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { directory, dockerArchive, file, tarOf } from '../support/images.ts';
import { sha256 } from '../support/registry.ts';

const CONTEXT_FILES = 100_000;
/** Node's own rm of as many files took 100 MB more than this. */
const PEAK_KIB_MAX = 240 * 1024;

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

  /** A context of many files, which are not read from a disk by the CLI. */
  function context(): Buffer {
    const files = Array.from({ length: CONTEXT_FILES }, (_, i) => file(`many/f${i}`, ''));
    const dockerfile = file('Dockerfile', 'FROM scratch\nCOPY many /many\n');
    return tarOf([dockerfile, directory('many'), ...files]);
  }
  const build = (): ReturnType<TestDaemon['spawn']> => {
    const cli = daemon.spawn(['build', '-q', '-'], { env: { DOCKER_BUILDKIT: '0' } });
    cli.stdin!.on('error', () => {});
    return cli;
  };

  beforeAll(async () => {
    // In memory: what is shown here has nothing to do with a disk, whose journal takes minutes for all these files.
    const folder = mkdtempSync('/dev/shm/drydock-e2e-');
    daemon = await TestDaemon.launch({
      socketPath: join(folder, 'docker.sock'),
      dataRoot: join(folder, 'data'),
      configFolder: join(folder, 'docker-config'),
    });
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

  it('while it has something imported ends the download', async () => {
    let isOpen = false;
    const from = await serve((_request, response) => {
      isOpen = true;
      response.once('close', () => (isOpen = false));
      response.write(tarOf([file('f', Buffer.alloc(1 << 20))]).subarray(0, 1 << 20));
    });
    const cli = daemon.spawn(['import', `http://${from}/root.tar`, 'imported']);
    await until(() => isOpen && entries('image/content/ingest').length > 0, 'it is being downloaded');
    cli.kill('SIGKILL');
    await until(() => !isOpen, 'the download has ended');
    await settles();
    expect(await daemon.ok(['images', '-q', 'imported'])).toBe('');
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

  it('while it pulls leaves what was verified, and the next pull goes on where it was', async () => {
    const [whole, broken] = [1, 2].map((byte) => tarOf([file('f', Buffer.alloc(1 << 20, byte))])) as [
      Buffer,
      Buffer,
    ];
    const config = JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [whole, broken].map(sha256) },
    });
    const descriptor = (bytes: string | Buffer): object => ({
      digest: sha256(bytes),
      size: bytes.length,
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
    });
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const layers = [whole, broken].map(descriptor);
    const manifest = JSON.stringify({ schemaVersion: 2, mediaType, config: descriptor(config), layers });
    const asked: string[] = [];
    let isSlow = true;
    const half = broken.length / 2;
    const registry = await serve(({ url = '', headers }, response) => {
      const blob = [config, whole, broken].find((each) => url.endsWith(sha256(each)));
      if (url === '/v2/') response.end('{}');
      else if (url.includes('/manifests/')) response.setHeader('Content-Type', mediaType).end(manifest);
      else if (blob !== broken) response.end(blob);
      else if (isSlow)
        response.writeHead(200, { 'Content-Length': broken.length }).write(broken.subarray(0, half));
      else {
        const from = Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1]);
        response.writeHead(206, { 'Content-Range': `bytes ${from}-${broken.length - 1}/${broken.length}` });
        response.end(broken.subarray(from));
      }
      asked.push(`${url.split('/').at(-1)} ${headers.range ?? ''}`);
    });
    const name = `${registry}/a:1`;
    const cli = daemon.spawn(['pull', '-q', name]);
    const part = at('image/content/ingest', `${sha256(broken).slice(7)}.part`);
    await until(
      () => existsSync(part) && entries('overlay2/layers').includes(sha256(whole).slice(7)),
      'one layer is there, of the other a half',
    );
    cli.kill('SIGKILL');
    isSlow = false;
    asked.length = 0;
    await until(async () => (await daemon.run(['pull', '-q', name])).code === 0, 'the next pull is through');
    expect(asked.filter((each) => each.startsWith(sha256(whole)))).toEqual([]);
    expect(asked.at(-1)).toMatch(new RegExp(`^${sha256(broken)} bytes=[1-9]\\d*-`));
    await daemon.ok(['rmi', name]);
    await settles();
  });

  it.each<[string, () => boolean]>([
    [
      'sends the context',
      () => entries('build').some((name) => existsSync(at('build', name, 'context/many'))),
    ],
    ['has many files copied', () => entries('overlay2/roots').length > 0],
  ])('while it %s for a build stops it, and what there was goes', async (_what, isUnderWay) => {
    const cli = build();
    cli.stdin!.end(context());
    await until(isUnderWay, 'it is under way', 60_000);
    cli.kill('SIGKILL');
    await settles();
    const status = readFileSync(`/proc/${daemon.process.pid}/status`, 'utf8');
    const [, peakKib] = /^VmHWM:\s+(\d+) kB$/m.exec(status)!;
    expect(Number(peakKib)).toBeLessThan(PEAK_KIB_MAX);
  });
});
