/** Dockerfiles built over a store of their own, with a web server and a git repository to fetch from. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createNetServer, type Server as NetServer } from 'node:net';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { systemClock } from '#common/clock';
import { nullLog } from '#common/log';
import { type BuildOptions, NO_WISHES } from '../../daemon/build/options.ts';
import type { StepRunner } from '../../daemon/build/runner.ts';
import type { Builds } from '../../daemon/build/service.ts';
import { ensureHostImage } from '../../daemon/image/index.ts';
import type { Image, Progress } from '../../daemon/image/store.ts';
import { buildsOver, chrootRunner } from './chroot-runner.ts';
import { directory, type Entry, file, symlink, type TestImages, tarOf, testImages } from './images.ts';

/** A signal that no test aborts. */
export const never: AbortSignal = new AbortController().signal;

/** What came of a build. */
export interface Built {
  image: Image;
  output: string;
  lines: Progress[];
}

/** The context of builds that name none. */
export const CONTEXT: Entry[] = [
  file('a.txt', 'A', { mode: 0o644, mtimeSeconds: 1_000_000 }),
  file('b.txt', 'B', { mode: 0o755 }),
  directory('dir', { mode: 0o750 }),
  file('dir/c', 'C', { uid: 77, gid: 78 }),
  file('dir/deep/d', 'D'),
  symlink('dir/link', 'c'),
  symlink('top', 'dir/c'),
  symlink('out', '../../../../../../etc/passwd'),
  file('sp ace', 'S'),
  file('t.tar', tarOf([file('in/tar', 'T'), symlink('in/l', 'tar')])),
  file('t.tgz', gzipSync(tarOf([file('gz', 'Z')]))),
  file('evil.tar', tarOf([file('../../x', 'X')])),
  file('plain.gz', gzipSync('no tar')),
];

/** A store in which `host` names the image of this host's programs. */
export class Dockerfiles {
  readonly store: TestImages;
  readonly builds: Builds;
  /** Where `git://127.0.0.1` serves `r.git`. */
  readonly gitPort: number;
  readonly #web: Server;
  readonly #git: NetServer;

  private constructor(store: TestImages, builds: Builds, web: Server, git: NetServer) {
    this.store = store;
    this.builds = builds;
    this.#web = web;
    this.#git = git;
    this.gitPort = portOf(git);
  }

  static async open(): Promise<Dockerfiles> {
    const store = await testImages();
    const builds = buildsOver(store);
    await builds.open();
    await ensureHostImage(store.images, nullLog, systemClock);
    await store.images.tag('drydock/host', 'host');
    const web = createServer((request, response) => {
      if (request.url === '/f.txt')
        response.writeHead(200, { 'Last-Modified': 'Thu, 01 Jan 2015 00:00:00 GMT' }).end('from the web');
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    return new Dockerfiles(store, builds, web, await serveRepository(`${store.dataRoot}/repositories`));
  }

  /** Builds; `$URL` in the Dockerfile is the web server. */
  async build(
    dockerfile: string,
    options: Partial<BuildOptions> & { context?: Entry[]; name?: string; runner?: StepRunner } = {},
  ): Promise<Built> {
    const { context = CONTEXT, name = 'Dockerfile', runner = chrootRunner(this.store), ...wishes } = options;
    const lines: Progress[] = [];
    const text = dockerfile.replaceAll('$URL', `http://127.0.0.1:${portOf(this.#web)}`);
    const id = await this.builds.build({
      options: { ...NO_WISHES, ...wishes },
      source: (scratch) =>
        this.builds.receive(Readable.from([tarOf([...context, file(name, text)])]), name, scratch, never),
      runner,
      credentialsFor: () => undefined,
      progress: (line) => void lines.push(line),
      signal: never,
    });
    return {
      image: await this.store.images.get(id),
      output: lines.map((line) => line.stream ?? '').join(''),
      lines,
    };
  }

  /** Runs `work` with the root of a container made from an image. */
  async inRoot<T>(image: Image, work: (root: string) => T): Promise<T> {
    await this.store.roots.create('look', image.id);
    try {
      return work(await this.store.roots.mount('look'));
    } finally {
      await this.store.roots.remove('look');
    }
  }

  async close(): Promise<void> {
    this.#git.close();
    this.#web.close();
    await this.store.dispose();
  }
}

const portOf = (server: NetServer): number => (server.address() as AddressInfo).port;

/** A repository that git's own daemon serves, one process per connection. */
async function serveRepository(folder: string): Promise<NetServer> {
  const git = (...args: string[]): string =>
    execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@b', ...args], {
      cwd: `${folder}/r.git`,
      encoding: 'utf8',
    });
  mkdirSync(`${folder}/r.git/sub`, { recursive: true });
  git('init', '--quiet', '--initial-branch=main');
  for (const name of ['one', 'two']) {
    writeFileSync(`${folder}/r.git/sub/${name}`, name);
    git('add', '.');
    git('commit', '--quiet', '-m', name);
    if (name === 'one') git('tag', 'v1');
  }
  const server = createNetServer((socket) => {
    const child = spawn('git', ['daemon', '--inetd', '--export-all', `--base-path=${folder}`], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: {
        ...process.env,
        GIT_CONFIG_COUNT: '1',
        GIT_CONFIG_KEY_0: 'safe.directory',
        GIT_CONFIG_VALUE_0: '*',
      },
    });
    socket.on('error', () => child.kill());
    socket.pipe(child.stdin);
    child.stdin.on('error', () => {});
    child.stdout.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

/** Archives in the two forms that the host's programs read. */
export function compressed(): Entry[] {
  const by = (program: string, name: string): Buffer =>
    execFileSync(program, ['-c'], { input: tarOf([file(name, name)]) });
  return [file('t.tar.bz2', by('bzip2', 'bz')), file('t.tar.xz', by('xz', 'xz'))];
}

/** Everything below a folder of a root: path, kind with mode, owner, and where a link leads. */
export const listing = (root: string, folder: string): string =>
  execFileSync('find', [`${root}${folder}`, '-mindepth', '0', '-printf', '/%P %y%m %U:%G %l\n'])
    .toString()
    .trim()
    .split('\n')
    .sort()
    .join('\n')
    .replaceAll(' \n', '\n')
    .trim();
