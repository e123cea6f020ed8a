/** Dockerfiles, each instruction and flag, built over the real store: what they make, what they say, and what is refused. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock';
import { nullLog } from '#common/log';
import type { BuildOptions } from '../../daemon/build/builder.ts';
import { Builds } from '../../daemon/build/service.ts';
import { ensureHostImage } from '../../daemon/image/index.ts';
import type { Image, Progress } from '../../daemon/image/store.ts';
import { chrootRunner } from '../support/chroot-runner.ts';
import {
  directory,
  type Entry,
  file,
  symlink,
  type TestImages,
  tarOf,
  testImages,
} from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root'));

let store: TestImages;
let builds: Builds;
let server: Server;
let base: string;

beforeAll(async () => {
  store = await testImages();
  builds = new Builds(store.images, store.roots, `${store.dataRoot}/build`);
  await builds.open();
  await ensureHostImage(store.images, nullLog, systemClock);
  await store.images.tag('drydock/host', 'host');
  server = createServer((request, response) => {
    if (request.url === '/f.txt')
      response.writeHead(200, { 'Last-Modified': 'Thu, 01 Jan 2015 00:00:00 GMT' }).end('from the web');
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.close();
  await store.dispose();
});

interface Built {
  image: Image;
  output: string;
  lines: Progress[];
}

const CONTEXT: Entry[] = [
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

async function build(
  dockerfile: string,
  options: Partial<BuildOptions> & { context?: Entry[]; name?: string } = {},
): Promise<Built> {
  const { context = CONTEXT, name = 'Dockerfile', ...wishes } = options;
  const lines: Progress[] = [];
  const id = await builds.build({
    options: {
      tags: [],
      target: '',
      buildArgs: new Map(),
      labels: {},
      noCache: false,
      pull: false,
      cacheFrom: [],
      platform: '',
      removeContainers: true,
      forceRemove: true,
      quiet: false,
      ...wishes,
    },
    source: (scratch) =>
      builds.receive(
        Readable.from([tarOf([...context, file(name, dockerfile.replaceAll('$URL', base))])]),
        name,
        scratch,
      ),
    runner: chrootRunner(store),
    credentialsFor: () => undefined,
    progress: (line) => void lines.push(line),
    signal: new AbortController().signal,
  });
  return {
    image: await store.images.get(id),
    output: lines.map((line) => line.stream ?? '').join(''),
    lines,
  };
}

/** Runs `work` with the root of a container made from an image. */
async function inRoot<T>(image: Image, work: (root: string) => T): Promise<T> {
  await store.roots.create('look', image.id);
  try {
    return work(await store.roots.mount('look'));
  } finally {
    await store.roots.remove('look');
  }
}

const listing = (root: string, folder: string): string =>
  execFileSync('find', [`${root}${folder}`, '-mindepth', '0', '-printf', '/%P %y%m %U:%G %l\n'])
    .toString()
    .trim()
    .split('\n')
    .sort()
    .join('\n')
    .replaceAll(' \n', '\n')
    .trim();

describeHere('configuration', () => {
  const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  it.each<[dockerfile: string, config: object, options?: Partial<BuildOptions>]>([
    ['FROM host\nENV A=1 B="2 3"\nENV C $A-$B', { Env: [PATH, 'A=1', 'B=2 3', 'C=1-2 3'] }],
    ['FROM host\nENV A=1\nENV A=2 B=$A', { Env: [PATH, 'A=2', 'B=1'] }],
    ['FROM scratch\nENV A=1', { Env: [PATH, 'A=1'] }],
    ['FROM host\nARG V=1\nENV A=$V', { Env: [PATH, 'A=1'] }],
    ['FROM host\nARG V=1\nENV A=$V', { Env: [PATH, 'A=9'] }, { buildArgs: new Map([['V', '9']]) }],
    ['FROM host\nARG V\nENV A=\x24{V:-none}', { Env: [PATH, 'A=none'] }],
    ['ARG V=1\nFROM host\nENV A=x$V', { Env: [PATH, 'A=x'] }],
    ['ARG V=1\nFROM host\nARG V\nENV A=x$V', { Env: [PATH, 'A=x1'] }],
    ['FROM host\nENV V=env\nARG V=arg\nENV A=$V', { Env: [PATH, 'V=env', 'A=env'] }],
    ['FROM host\nARG A=1 B=2\nENV C=$A$B', { Env: [PATH, 'C=12'] }],
    [
      'FROM host\nLABEL a=1 "b c"="d e"\nLABEL a=2',
      { Labels: expect.objectContaining({ a: '2', 'b c': 'd e' }) },
    ],
    [
      'FROM host\nLABEL a=1',
      { Labels: expect.objectContaining({ a: '1', 'x y': '"q$' }) },
      { labels: { 'x y': '"q$' } },
    ],
    [
      'FROM host\nEXPOSE 80 53/udp\nENV P="1 2"\nEXPOSE $P',
      { ExposedPorts: { '80/tcp': {}, '53/udp': {}, '1/tcp': {}, '2/tcp': {} } },
    ],
    ['FROM host\nVOLUME /a ["b"]', { Volumes: { '/a': {}, '[b]': {} } }],
    ['FROM host\nVOLUME ["/a", "/b c"]', { Volumes: { '/a': {}, '/b c': {} } }],
    ['FROM host\nENV U=node\nUSER $U', { User: 'node' }],
    ['FROM host\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c', { WorkingDir: '/a/c' }],
    ['FROM host\nENV D=/x\nWORKDIR $D/y', { WorkingDir: '/x/y' }],
    ['FROM host\nCMD echo hi', { Cmd: ['/bin/sh', '-c', 'echo hi'] }],
    ['FROM host\nCMD ["a","b"]\nENTRYPOINT ["e"]', { Cmd: ['a', 'b'], Entrypoint: ['e'] }],
    ['FROM host\nENTRYPOINT ["e"]', { Entrypoint: ['e'] }],
    ['FROM host\nENTRYPOINT e $HOME', { Entrypoint: ['/bin/sh', '-c', 'e $HOME'] }],
    [
      'FROM host\nSHELL ["/bin/bash", "-c"]\nCMD x',
      { Shell: ['/bin/bash', '-c'], Cmd: ['/bin/bash', '-c', 'x'] },
    ],
    ['FROM host\nSTOPSIGNAL SIGINT', { StopSignal: 'SIGINT' }],
    [
      'FROM host\nHEALTHCHECK --interval=5s --retries=2 CMD ["x"]',
      { Healthcheck: { Test: ['CMD', 'x'], Interval: 5e9, Retries: 2 } },
    ],
    ['FROM host\nHEALTHCHECK CMD x\nHEALTHCHECK NONE', { Healthcheck: { Test: ['NONE'] } }],
    ['FROM host\nONBUILD RUN x\nONBUILD COPY a b', { OnBuild: ['RUN x', 'COPY a b'] }],
    ['# escape=`\nFROM host\nENV A=`\nb', { Env: [PATH, 'A=b'] }],
  ])('%j', async (dockerfile, config, options = {}) => {
    const { image } = await build(dockerfile, options);
    expect(image.config).toMatchObject(config as object);
  });

  it('MAINTAINER is the author', async () => {
    expect((await build('FROM host\nMAINTAINER me <a@b>')).image.author).toBe('me <a@b>');
  });

  it('of the platform of FROM --platform', async () => {
    const { image } = await build('FROM --platform=$BUILDPLATFORM host\nENV A=1');
    expect(image.os).toBe(process.platform);
  });
});

describeHere('COPY and ADD', () => {
  it.each<[instruction: string, folder: string, files: string]>([
    ['COPY a.txt /x', '/x', '/ f644 0:0'],
    ['COPY a.txt /d/', '/d', '/ d755 0:0\n/a.txt f644 0:0'],
    ['COPY a.txt b.txt /d/', '/d', '/ d755 0:0\n/a.txt f644 0:0\n/b.txt f755 0:0'],
    ['COPY *.txt /d/', '/d', '/ d755 0:0\n/a.txt f644 0:0\n/b.txt f755 0:0'],
    ['COPY ?.txt [b-d].txt /d/', '/d', '/ d755 0:0\n/a.txt f644 0:0\n/b.txt f755 0:0'],
    ['COPY dir /d', '/d', '/ d755 0:0\n/c f644 0:0\n/deep d755 0:0\n/deep/d f644 0:0\n/link l777 0:0 c'],
    [
      'COPY dir/ /d/e/',
      '/d',
      '/ d755 0:0\n/e d755 0:0\n/e/c f644 0:0\n/e/deep d755 0:0\n/e/deep/d f644 0:0\n/e/link l777 0:0 c',
    ],
    ['COPY di* /d/', '/d', '/ d755 0:0\n/c f644 0:0\n/deep d755 0:0\n/deep/d f644 0:0\n/link l777 0:0 c'],
    ['COPY top /x', '/x', '/ f644 0:0'],
    ['COPY ["sp ace", "/d/"]', '/d', '/ d755 0:0\n/sp ace f644 0:0'],
    [
      'COPY --chown=1:2 dir /d',
      '/d',
      '/ d755 1:2\n/c f644 1:2\n/deep d755 1:2\n/deep/d f644 1:2\n/link l777 1:2 c',
    ],
    ['COPY --chown=node a.txt /d/', '/d', '/ d755 1000:1000\n/a.txt f644 1000:1000'],
    ['COPY --chmod=600 a.txt /x', '/x', '/ f600 0:0'],
    ['WORKDIR /w\nCOPY a.txt .', '/w', '/ d755 0:0\n/a.txt f644 0:0'],
    ['WORKDIR /w\nCOPY a.txt r/', '/w', '/ d755 0:0\n/r d755 0:0\n/r/a.txt f644 0:0'],
    ['COPY /a.txt ./x', '/x', '/ f644 0:0'],
    ['COPY ../../a.txt /x', '/x', '/ f644 0:0'],
    ['ENV F=a.txt\nCOPY $F /x', '/x', '/ f644 0:0'],
    ['COPY t.tar /d/', '/d', '/ d755 0:0\n/t.tar f644 0:0'],
    ['ADD t.tar /d/', '/d', '/ d755 0:0\n/in d755 0:0\n/in/l l777 0:0 tar\n/in/tar f644 0:0'],
    ['ADD t.tgz /d', '/d', '/ d755 0:0\n/gz f644 0:0'],
    ['ADD plain.gz /d/', '/d', '/ d755 0:0\n/plain.gz f644 0:0'],
    ['ADD $URL/f.txt /d/', '/d', '/ d755 0:0\n/f.txt f600 0:0'],
    ['ADD $URL/f.txt /x', '/x', '/ f600 0:0'],
    ['COPY <<E /x\nv\nE', '/x', '/ f644 0:0'],
    ['COPY <<a.sh <<b /d/\nE\na.sh\nF\nb', '/d', '/ d755 0:0\n/a.sh f644 0:0\n/b f644 0:0'],
    ['RUN mkdir /r && ln -s /r /l\nCOPY a.txt /l/', '/r', '/ d755 0:0\n/a.txt f644 0:0'],
    [
      'RUN mkdir /outside && ln -s ../../../../outside /l\nCOPY a.txt /l/x',
      '/outside',
      '/ d755 0:0\n/x f644 0:0',
    ],
    ['COPY dir /bin\nRUN test -x /usr/bin/cat', '/bin/c', '/ f644 0:0'],
  ])('%j', async (instruction, folder, files) => {
    const { image } = await build(`FROM host\n${instruction}`);
    expect(await inRoot(image, (root) => listing(root, folder))).toBe(files);
  });

  it('keep content and time of files, and a URL’s time', async () => {
    const { image } = await build('FROM scratch\nCOPY a.txt /\nADD $URL/f.txt /');
    await inRoot(image, (root) => {
      expect(readFileSync(`${root}/a.txt`, 'utf8')).toBe('A');
      expect(readFileSync(`${root}/f.txt`, 'utf8')).toBe('from the web');
      expect(execFileSync('stat', ['-c', '%Y', `${root}/a.txt`, `${root}/f.txt`]).toString()).toBe(
        '1000000\n1420070400\n',
      );
    });
  });

  it('a symlink of the context leads nowhere outside of it', async () => {
    await expect(build('FROM scratch\nCOPY out /x')).rejects.toMatchObject({
      code: 'ERR_BUILD',
      message: expect.stringContaining('COPY failed: file not found in build context'),
    });
  });

  it('an archive that leads out of its destination is refused', async () => {
    await expect(build('FROM scratch\nADD evil.tar /d/')).rejects.toThrow('leads out of the archive');
  });

  it('here-documents have variables, unless their name is quoted', async () => {
    const { image } = await build('FROM scratch\nARG V=1\nCOPY <<A <<"B" /\n$V\nA\n$V\nB');
    await inRoot(image, (root) => {
      expect(readFileSync(`${root}/A`, 'utf8')).toBe('1\n');
      expect(readFileSync(`${root}/B`, 'utf8')).toBe('$V\n');
    });
  });
});

describeHere('RUN', () => {
  it.each<[instruction: string, path: string, content: string]>([
    ['RUN echo hi > /f', '/f', 'hi\n'],
    ['RUN ["sh", "-c", "echo $0 > /f", "x y"]', '/f', 'x y\n'],
    ['ENV A=b\nRUN echo $A > /f', '/f', 'b\n'],
    ['ARG A=b\nRUN echo $A > /f', '/f', 'b\n'],
    ['WORKDIR /w\nRUN pwd > f', '/w/f', '/w\n'],
    ['USER node\nRUN id -u > /tmp/f', '/tmp/f', '1000\n'],
    ['SHELL ["/bin/bash", "-c"]\nRUN [[ a == a* ]] && echo ok > /f', '/f', 'ok\n'],
    ['RUN echo a \\\n  # comment\n  b > /f', '/f', 'a b\n'],
    ['RUN <<E\necho one > /f\necho two >> /f\nE', '/f', 'one\ntwo\n'],
    ['RUN cat <<E > /f\n$((6*7))\nE', '/f', '42\n'],
    [
      'RUN <<E\n#!/usr/bin/env node\nrequire("fs").writeFileSync("/f", process.version)\nE',
      '/f',
      process.version,
    ],
  ])('%j', async (instruction, path, content) => {
    const { image } = await build(`FROM host\n${instruction}`);
    expect(await inRoot(image, (root) => readFileSync(root + path, 'utf8'))).toBe(content);
  });

  it('has the proxies of the client, which leave no trace', async () => {
    const { image } = await build('FROM host\nRUN echo $HTTP_PROXY > /f', {
      buildArgs: new Map([['HTTP_PROXY', 'http://p']]),
    });
    expect(await inRoot(image, (root) => readFileSync(`${root}/f`, 'utf8'))).toBe('http://p\n');
    expect(JSON.stringify([image.history, image.config])).not.toContain('http://p');
  });

  it('that fails ends the build with its exit code', async () => {
    await expect(build('FROM host\nRUN exit 7')).rejects.toMatchObject({
      code: 'ERR_BUILD_RUN',
      exitCode: 7,
      message: "The command '/bin/sh -c exit 7' returned a non-zero code: 7",
    });
  });

  it('removes what a lower layer had', async () => {
    const { image } = await build('FROM host\nCOPY dir /d\nRUN rm -r /d/deep && rm /d/c');
    expect(await inRoot(image, (root) => listing(root, '/d'))).toBe('/ d755 0:0\n/link l777 0:0 c');
  });
});

describeHere('stages', () => {
  it('give files to later ones, by name and by number', async () => {
    const { image } = await build(
      'FROM host AS One\nRUN echo 1 > /f\nFROM scratch AS two\nCOPY --from=one /f /a\nCOPY --from=0 /f /b\nFROM scratch\nCOPY --from=two / /all/',
    );
    expect(await inRoot(image, (root) => listing(root, ''))).toBe(
      '/ d755 0:0\n/all d755 0:0\n/all/a f644 0:0\n/all/b f644 0:0',
    );
  });

  it('can be continued, and images can give files too', async () => {
    const { image } = await build(
      'FROM host AS one\nENV A=1\nFROM one\nCOPY --from=host /etc/os-release /copied',
    );
    expect(image.config.Env).toContain('A=1');
    expect(await inRoot(image, (root) => readFileSync(`${root}/copied`, 'utf8'))).toContain('NAME=');
  });

  it('end at the target', async () => {
    const { image, output } = await build('FROM host AS one\nENV A=1\nFROM host AS two\nRUN exit 1', {
      target: 'ONE',
    });
    expect(image.config.Env).toContain('A=1');
    expect(output).not.toContain('Step 3');
  });

  it('do not share arguments', async () => {
    const { image } = await build('FROM host AS one\nARG V=1\nFROM host\nENV A=x$V');
    expect(image.config.Env).toContain('A=x');
  });

  it('run the triggers of their base', async () => {
    await build('FROM host\nONBUILD COPY a.txt /on\nONBUILD ENV T=1', { tags: ['onbuild'] });
    const { image, output } = await build('FROM onbuild\nRUN cat /on');
    expect(output).toContain('# Executing 2 build triggers\n');
    expect(image.config).toMatchObject({ Env: expect.arrayContaining(['T=1']) });
    expect(image.config.OnBuild).toBeUndefined();
  });
});

describeHere('the cache', () => {
  const steps = (output: string): number => output.split(' ---> Using cache').length - 1;

  it('gives the same image again, until something changes', async () => {
    const text = 'FROM host\nENV CACHE=1\nCOPY a.txt /x\nRUN date +%N > /y';
    const first = await build(text);
    expect(steps(first.output)).toBe(0);
    const second = await build(text);
    expect([second.image.id, steps(second.output)]).toEqual([first.image.id, 3]);
    const context = [file('a.txt', 'changed'), ...CONTEXT.slice(1)];
    const third = await build(text, { context });
    expect(steps(third.output)).toBe(1);
    const touched = [file('a.txt', 'A', { mode: 0o644, mtimeSeconds: 2, uid: 9 }), ...CONTEXT.slice(1)];
    expect((await build(text, { context: touched })).image.id).toBe(first.image.id);
    expect(steps((await build(text, { noCache: true })).output)).toBe(0);
  });

  it('knows arguments that RUN sees', async () => {
    const text = 'FROM host\nARG Q\nRUN echo $Q > /q';
    const one = await build(text, { buildArgs: new Map([['Q', '1']]) });
    const two = await build(text, { buildArgs: new Map([['Q', '2']]) });
    expect(one.image.id).not.toBe(two.image.id);
    expect(steps((await build(text, { buildArgs: new Map([['Q', '1']]) })).output)).toBe(2);
  });

  it('takes steps from an image that was loaded', async () => {
    const text = 'FROM host\nRUN date +%N > /from-elsewhere\nENV Z=1';
    const { image } = await build(text, { tags: ['cached'] });
    const { readAll } = await import('../support/images.ts');
    const saved = await readAll(await store.images.save(['cached']));
    await store.images.remove('cached', { force: true, prune: true, users: () => [] });
    expect(steps((await build('FROM host\nENV UNRELATED=1')).output)).toBe(0);
    await store.images.load(Readable.from([saved]), () => {});
    const again = await build(text, { cacheFrom: ['cached'] });
    expect(steps(again.output)).toBe(2);
    expect(again.image.diffIds).toEqual(image.diffIds);
  });
});

describeHere('the output', () => {
  it('is that of docker’s classic builder', async () => {
    const { image, output, lines } = await build('FROM host\nRUN echo out\nENV OUT=1', {
      tags: ['said:1', 'said:2'],
      noCache: true,
    });
    const id = '[0-9a-f]{12}';
    expect(output).toMatch(
      new RegExp(
        `^Step 1/3 : FROM host\n ---> ${id}\nStep 2/3 : RUN echo out\n ---> Running in \\S{12}\nout\n ---> Removed intermediate container \\S{12}\n ---> ${id}\nStep 3/3 : ENV OUT=1\n ---> ${id}\nSuccessfully built ${image.id.slice(7, 19)}\nSuccessfully tagged said:1\nSuccessfully tagged said:2\n$`,
      ),
    );
    expect(lines).toContainEqual({ aux: { ID: image.id } });
    expect(image.tags).toEqual(['said:1', 'said:2']);
    expect(image.history.slice(-2).map((step) => [step.created_by, step.empty_layer ?? false])).toEqual([
      ['/bin/sh -c echo out', false],
      ['/bin/sh -c #(nop)  ENV OUT=1', true],
    ]);
  });

  it('is only the id when the client wants it quiet, and warns of arguments that nothing takes', async () => {
    const { image, output } = await build('FROM host\nENV Q=1', { quiet: true });
    expect(output).toBe(`${image.id}\n`);
    expect((await build('FROM host', { buildArgs: new Map([['NOT_USED', '1']]) })).output).toContain(
      '[Warning] One or more build-args [NOT_USED] were not consumed',
    );
  });
});

describeHere('bad Dockerfiles', () => {
  it.each<[dockerfile: string, message: string, options?: Partial<BuildOptions>]>([
    ['RUN x', 'No build stage in current context'],
    ['ENV A=b\nFROM host', 'no build stage in current context'],
    ['FROM', 'FROM requires either one or three arguments'],
    ['FROM a b c', 'FROM requires either one or three arguments'],
    ['FROM $NOTHING', 'base name ($NOTHING) should not be blank'],
    ['FROM host AS 1x', 'invalid name for build stage: "1x"'],
    ['FROM host\nRUN --mount=type=cache,target=/x x', 'the --mount option of RUN is not supported'],
    ['FROM host\nCOPY --link a.txt /', 'the --link option of COPY is not supported'],
    ['FROM host\nCOPY a.txt', 'COPY requires at least two arguments, but only 1 was provided'],
    ['FROM host\nCOPY a.txt b.txt /x', 'the destination must be a directory and end with a /'],
    [
      'FROM host\nCOPY nothing /x',
      'COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist',
    ],
    ['FROM host\nCOPY no*thing /x', 'COPY failed: no source files were specified'],
    ['FROM host\nCOPY --from=5 /a /b', 'invalid from flag value 5: invalid stage index or name'],
    ['FROM host\nCOPY --chown=nosuchuser a.txt /x', "can't find uid for user nosuchuser"],
    ['FROM host\nCOPY --chmod=u+x a.txt /x', '--chmod=u+x is not an octal mode'],
    ['FROM host\nCOPY dir/c /d/\nCOPY dir /d/c', 'COPY failed: cannot enter the directory "d/c" (ENOTDIR)'],
    ['FROM host\nADD $URL/missing /x', 'with status 404'],
    ['FROM scratch\nRUN x', 'FROM scratch has none'],
    ['FROM scratch', 'No image was generated'],
    ['FROM host\nENV', 'ENV requires at least one argument'],
    ['FROM host\nENV A=${x', 'failed to process'],
    ['FROM host', 'failed to reach build target nope in Dockerfile', { target: 'nope' }],
    ['FROM host', 'invalid reference format', { tags: ['BAD'] }],
    ['FROM host\nEXPOSE x', 'Invalid containerPort: x'],
    ['FROM host\nSHELL x', 'SHELL requires the arguments to be in JSON form'],
  ])('%j: %s', async (dockerfile, message, options = {}) => {
    await expect(build(dockerfile, options)).rejects.toThrow(message);
  });

  it('a file can not replace a folder of the image', async () => {
    await expect(build('FROM host\nRUN mkdir -p /d/a.txt\nCOPY a.txt /d/')).rejects.toThrow(
      'is a folder, which a file can not replace',
    );
  });

  it('the Dockerfile is looked for where the client says, inside of the context only', async () => {
    await expect(build('FROM host', { name: 'other' })).resolves.toBeDefined();
    const none = builds.build({
      options: {
        tags: [],
        target: '',
        buildArgs: new Map(),
        labels: {},
        noCache: false,
        pull: false,
        cacheFrom: [],
        platform: '',
        removeContainers: true,
        forceRemove: true,
        quiet: false,
      },
      source: (scratch) => builds.receive(Readable.from([tarOf(CONTEXT)]), '../../etc/passwd', scratch),
      runner: chrootRunner(store),
      credentialsFor: () => undefined,
      progress: () => {},
      signal: new AbortController().signal,
    });
    await expect(none).rejects.toThrow('Cannot locate specified Dockerfile: ../../etc/passwd');
  });

  it('.dockerignore takes the two files of the build itself out of the context', async () => {
    const context = [file('.dockerignore', 'Dockerfile\n.dockerignore'), file('kept', '')];
    const { image } = await build('FROM scratch\nCOPY . /', { context });
    expect(await inRoot(image, (root) => listing(root, ''))).toBe('/ d755 0:0\n/kept f644 0:0');
  });

  it('a lone Dockerfile is a context too', async () => {
    const id = await builds.build({
      options: {
        tags: [],
        target: '',
        buildArgs: new Map(),
        labels: {},
        noCache: false,
        pull: false,
        cacheFrom: [],
        platform: '',
        removeContainers: true,
        forceRemove: true,
        quiet: true,
      },
      source: (scratch) =>
        builds.receive(Readable.from([Buffer.from('FROM host\nENV LONE=1\n')]), 'Dockerfile', scratch),
      runner: chrootRunner(store),
      credentialsFor: () => undefined,
      progress: () => {},
      signal: new AbortController().signal,
    });
    expect((await store.images.get(id)).config.Env).toContain('LONE=1');
  });

  it('nothing of a failed build is left but its cache', async () => {
    const { readdirSync } = await import('node:fs');
    expect(readdirSync(`${store.dataRoot}/build`)).toEqual([]);
    expect(readdirSync(`${store.dataRoot}/overlay2/roots`)).toEqual([]);
    expect(readdirSync(`${store.dataRoot}/image/content/ingest`)).toEqual([]);
  });
});
