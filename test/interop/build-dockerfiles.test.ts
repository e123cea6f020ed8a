/** Dockerfiles, each instruction and flag, built over the real store: what they make. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BuildOptions, NamedContext } from '../../daemon/build/options.ts';
import { digestOf } from '../../daemon/image/content.ts';
import { chrootRunner } from '../support/chroot-runner.ts';
import { CONTEXT, compressed, Dockerfiles, listing } from '../support/dockerfiles.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root'));

let dockerfiles: Dockerfiles;
beforeAll(async () => {
  dockerfiles = await Dockerfiles.open();
});
afterAll(() => dockerfiles.close());
const build: Dockerfiles['build'] = (...args) => dockerfiles.build(...args);
const inRoot: Dockerfiles['inRoot'] = (...args) => dockerfiles.inRoot(...args);

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

describeHere('what BuildKit adds to Dockerfiles', () => {
  it.each([
    ['COPY --link dir /d/', '/ d755 0:0\n/c f644 0:0\n/deep d755 0:0\n/deep/d f644 0:0\n/link l777 0:0 c'],
    [
      'COPY --parents dir/deep/d a.txt /d/',
      '/ d755 0:0\n/a.txt f644 0:0\n/dir d750 0:0\n/dir/deep d755 0:0\n/dir/deep/d f644 0:0',
    ],
    ['COPY --parents dir/./deep/d /d/', '/ d755 0:0\n/deep d755 0:0\n/deep/d f644 0:0'],
    ['COPY --parents **/d /d/', '/ d755 0:0\n/dir d750 0:0\n/dir/deep d755 0:0\n/dir/deep/d f644 0:0'],
    ['COPY --exclude=deep --exclude=l* dir /d/', '/ d755 0:0\n/c f644 0:0'],
    ['COPY --exclude=* --exclude=!deep/d dir /d/', '/ d755 0:0\n/deep d755 0:0\n/deep/d f644 0:0'],
    ['COPY --exclude=*.txt a.txt b.txt dir/c /d/', '/ d755 0:0\n/c f644 0:0'],
    [
      'COPY --chmod=u=rwX,go= dir /d/',
      '/ d755 0:0\n/c f600 0:0\n/deep d700 0:0\n/deep/d f600 0:0\n/link l777 0:0 c',
    ],
    ['COPY --chmod=go-r a.txt /d/', '/ d755 0:0\n/a.txt f600 0:0'],
    ['ADD --unpack=false t.tgz /d/', '/ d755 0:0\n/t.tgz f644 0:0'],
    ['ADD t.tar.bz2 t.tar.xz /d/', '/ d755 0:0\n/bz f644 0:0\n/xz f644 0:0'],
    ['ADD --checksum=sha256:$SUM $URL/f.txt /d/', '/ d755 0:0\n/f.txt f600 0:0'],
    ['ADD git://127.0.0.1:$GIT/r.git#v1:sub /d/', '/ d755 0:0\n/one f644 0:0'],
    ['ADD git://127.0.0.1:$GIT/r.git#main:sub /d/', '/ d755 0:0\n/one f644 0:0\n/two f644 0:0'],
  ])('%s', async (line, files) => {
    const text = line
      .replace('$GIT', String(dockerfiles.gitPort))
      .replace('$SUM', digestOf('from the web').slice(7));
    const { image } = await build(`FROM scratch\n${text}`, { context: [...CONTEXT, ...compressed()] });
    expect(await inRoot(image, (root) => listing(root, '/d'))).toBe(files);
  });

  it('ADD of a repository keeps .git when asked, and only then', async () => {
    const { image } = await build(
      `FROM scratch\nADD --keep-git-dir git://127.0.0.1:${dockerfiles.gitPort}/r.git /k/`,
    );
    expect(await inRoot(image, (root) => readFileSync(`${root}/k/.git/HEAD`, 'utf8'))).toMatch(
      /^[0-9a-f]{40}\n/,
    );
  });

  const stages =
    'FROM host AS used\nRUN echo used > /u\nFROM host AS broken\nRUN false\nFROM used\nCOPY --from=0 /u /v\n';
  it('builds only the stages that the target needs', async () => {
    await expect(build(stages)).rejects.toThrow('returned a non-zero code');
    const { image } = await build(stages, { mode: 'buildkit' });
    expect(await inRoot(image, (root) => readFileSync(`${root}/v`, 'utf8'))).toBe('used\n');
  });

  it('builds stages side by side that do not need each other', async () => {
    // Each waits for the other: one after the other they would wait for ever.
    const gate = mkdtempSync(`${tmpdir()}/drydock-gate-`);
    const meet = (own: string, other: string): string =>
      `RUN touch /gate/${own}; while ! test -e /gate/${other}; do sleep 0.05; done`;
    const runner = chrootRunner(dockerfiles.store, { [gate]: 'gate' });
    const text = `FROM host AS a\n${meet('a', 'b')}\nFROM host AS b\n${meet('b', 'a')}\nFROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n`;
    await build(text, { mode: 'buildkit', runner, noCache: true });
    rmSync(gate, { recursive: true });
  });

  it('a stage that fails ends the others, and is the failure that is told', async () => {
    const text =
      'FROM host AS a\nRUN exec sleep 1000\nFROM host AS b\nRUN exit 5\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n';
    await expect(build(text, { mode: 'buildkit' })).rejects.toThrow(
      "'/bin/sh -c exit 5' returned a non-zero code: 5",
    );
  });

  it('a stage inherits the arguments of the stage that it is from, and knows the platforms', async () => {
    const text =
      'FROM host AS a\nARG V=1\nFROM a\nARG TARGETOS BUILDPLATFORM\nENV E=$V-$TARGETOS-$BUILDPLATFORM\n';
    const { image } = await build(text, { mode: 'buildkit' });
    expect(image.config.Env?.at(-1)).toMatch(/^E=1-linux-linux\/\w+$/);
  });

  it('a named context stands for an image or for a folder, in FROM and in --from', async () => {
    const folder = mkdtempSync(`${tmpdir()}/drydock-named-`);
    writeFileSync(`${folder}/n`, 'named');
    const namedContexts = new Map<string, NamedContext>([
      ['files', { kind: 'folder', fetch: async () => folder }],
      ['example/none', { kind: 'image', reference: 'host' }],
    ]);
    const text = 'FROM example/none:latest AS a\nCOPY --from=files n /n\nFROM files\nCOPY --from=a /n /m\n';
    const { image } = await build(text, { mode: 'buildkit', namedContexts });
    rmSync(folder, { recursive: true });
    expect(await inRoot(image, (root) => listing(root, ''))).toBe('/ d755 0:0\n/m f644 0:0\n/n f644 0:0');
  });

  it('--no-cache-filter does the steps of its stages again', async () => {
    const text =
      'FROM host AS a\nRUN date +%N > /a\nFROM host AS b\nRUN date +%N > /b\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n';
    const read = async (noCacheStages: string[]): Promise<string[]> => {
      const { image } = await build(text, { mode: 'buildkit', noCacheStages });
      return inRoot(image, (root) => ['a', 'b'].map((name) => readFileSync(`${root}/${name}`, 'utf8')));
    };
    const [a, b] = await read([]);
    const again = await read(['a']);
    expect(again[0]).not.toBe(a);
    expect(again[1]).toBe(b);
  });
});
