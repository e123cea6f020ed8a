/** The same Dockerfiles built by us and by Debian's dockerd: the same configuration, the same files. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NO_WISHES } from '../../daemon/build/options.ts';
import type { Builds } from '../../daemon/build/service.ts';
import { digestOf } from '../../daemon/image/content.ts';
import { packTree } from '../../daemon/image/pack.ts';
import type { Image, ImageConfig } from '../../daemon/image/store.ts';
import { TarReader } from '../../daemon/image/tar/reader.ts';
import { buildsOver, chrootRunner } from '../support/chroot-runner.ts';
import { Dockerd } from '../support/dockerd.ts';
import {
  directory,
  type Entry,
  file,
  readAll,
  symlink,
  type TestImages,
  tarOf,
  testImages,
} from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root', 'dockerd', '/bin/busybox'));

const TOOLS =
  'sh cat ls echo env id mkdir rmdir rm ln cp mv touch chmod chown find test true false sed grep date printf head tail wc sort'.split(
    ' ',
  );
const BASE: Entry[] = [
  ...['bin', 'etc', 'tmp', 'usr', 'usr/lib', 'dev', 'proc', 'sys', 'home', 'home/u'].map((name) =>
    directory(name, name === 'tmp' ? { mode: 0o1777 } : {}),
  ),
  symlink('lib', 'usr/lib'),
  file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nu:x:1000:1001::/home/u:/bin/sh\n'),
  file('etc/group', 'root:x:0:\nu:x:1001:\ng:x:50:\n'),
  ...TOOLS.map((tool) => symlink(`bin/${tool}`, 'busybox')),
];
const CONTEXT: Entry[] = [
  file('a.txt', 'A'),
  file('b.txt', 'B', { mode: 0o755 }),
  file('.hidden', 'H'),
  directory('dir', { mode: 0o750 }),
  file('dir/c', 'C', { uid: 77, gid: 78, mode: 0o4755 }),
  directory('dir/empty', { mode: 0o700 }),
  file('dir/deep/d', 'D'),
  symlink('dir/link', 'c'),
  symlink('dir/dangling', '/nowhere'),
  [{ name: 'dir/hard', type: 'link', linkName: 'dir/c', mode: 0o4755, uid: 77, gid: 78 }],
  symlink('top', 'dir/c'),
  symlink('todir', 'dir'),
  file('sp ace', 'S'),
  file(
    't.tar',
    tarOf([directory('in', { mode: 0o711 }), file('in/tar', 'T', { uid: 5 }), symlink('in/l', 'tar')]),
  ),
  file('t.tgz', gzipSync(tarOf([file('gz', 'Z')]))),
];

const DOCKERFILES = [
  'FROM base',
  'FROM base\nENV A=1 B="2 3" C=4\\ 5\nENV D $A-$B',
  'FROM base\nENV A=\'$X\' B="$PATH" C=\\$X',
  'FROM base\nENV A=a\nENV B=\x24{A:-x} C=\x24{N:-y} D=\x24{A:+z} E=\x24{N:+w}',
  'FROM base\nENV A a  b   c',
  'FROM base\nENV A=1 \\\n  # comment\n  B=2 \\\n\n  C=3',
  'FROM base\nENV A=1\nENV A=2 B=$A',
  'FROM scratch\nCOPY a.txt /',
  'FROM base\nARG V=1\nENV A=$V',
  'FROM base\nARG V\nENV A=x$V',
  'FROM base\nENV V=env\nARG V=arg\nENV A=$V',
  'ARG V=base\nFROM $V\nENV A=x$V',
  'ARG V=base\nFROM \x24{V}\nARG V\nENV A=x$V',
  'FROM base\nARG V=1\nRUN echo $V > /f',
  'FROM base\nLABEL a=1 "b c"="d e" f=\'g h\'\nLABEL a=2',
  'FROM base\nLABEL a b c',
  'FROM base\nLABEL a="x \\\n y"',
  'FROM base\nEXPOSE 80 53/udp\nENV P=1\nEXPOSE $P/tcp',
  'FROM base\nEXPOSE 90-92',
  'FROM base\nVOLUME /a /b',
  'FROM base\nVOLUME ["/a", "/b c"]',
  'FROM base\nENV U=u\nUSER $U',
  'FROM base\nUSER 5:6\nRUN id -u > /tmp/f; id -g >> /tmp/f',
  'FROM base\nUSER u\nRUN id -u > /tmp/f; id -g >> /tmp/f',
  'FROM base\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c\nRUN touch here',
  'FROM base\nENV D=/x\nWORKDIR $D/y',
  'FROM base\nCMD echo hi',
  'FROM base\nCMD ["a", "b c"]',
  'FROM base\nCMD ["a"]\nENTRYPOINT ["e"]',
  'FROM base\nCMD ["a"]\nENTRYPOINT e $A',
  'FROM base\nCMD [not, json]',
  'FROM base\nSHELL ["/bin/sh", "-e", "-c"]\nCMD x\nRUN echo hi > /f',
  'FROM base\nSTOPSIGNAL SIGINT\nSTOPSIGNAL 9',
  'FROM base\nHEALTHCHECK --interval=5s --timeout=1m --start-period=2s --retries=2 CMD ["x", "y"]',
  'FROM base\nHEALTHCHECK CMD x y',
  'FROM base\nHEALTHCHECK CMD x\nHEALTHCHECK NONE',
  'FROM base\nONBUILD RUN x\nONBUILD COPY a b',
  'FROM base\nMAINTAINER me <a@b>',
  '# escape=`\nFROM base\nENV A=`\nb\\',
  'FROM base\nCOPY a.txt /x',
  'FROM base\nCOPY a.txt /d/',
  'FROM base\nCOPY a.txt b.txt /d/',
  'FROM base\nCOPY *.txt /d/',
  'FROM base\nCOPY ?.txt [s]* /d/',
  'FROM base\nCOPY . /d',
  'FROM base\nCOPY dir /d',
  'FROM base\nCOPY dir/ /d/e/',
  'FROM base\nCOPY di* /d/',
  'FROM base\nCOPY dir a.txt /d/',
  'FROM base\nCOPY top /x',
  'FROM base\nCOPY todir /x',
  'FROM base\nCOPY todir/c /x',
  'FROM base\nCOPY ["sp ace", "/d/"]',
  'FROM base\nCOPY --chown=1:2 dir /d',
  'FROM base\nCOPY --chown=u a.txt /d/',
  'FROM base\nCOPY --chown=u:g a.txt /home/u/',
  'FROM base\nWORKDIR /w\nCOPY a.txt .',
  'FROM base\nWORKDIR /w\nCOPY a.txt ./r/s',
  'FROM base\nCOPY a.txt /lib/',
  'FROM base\nCOPY a.txt /lib/x/y',
  'FROM base\nCOPY dir /lib',
  'FROM base\nENV F=a.txt D=/d\nCOPY $F \x24{D}/',
  'FROM base\nCOPY t.tar /d/',
  'FROM base\nADD t.tar /d/',
  'FROM base\nADD t.tar t.tgz a.txt /d/',
  'FROM base\nADD t.tgz /d',
  'FROM base\nADD --chown=u dir /d',
  'FROM base\nRUN echo hi > /f && mkdir -p /d/e && ln /f /d/hard && ln -s ../f /d/soft && chmod 1777 /d',
  'FROM base\nRUN ["sh", "-c", "echo $0 > /f", "x y"]',
  'FROM base\nCOPY dir /d\nRUN rm -r /d/deep /d/c && rmdir /d/empty && mkdir /d/deep && touch /d/deep/new',
  'FROM base\nRUN rm -r /home && touch /home',
  'FROM base AS one\nRUN echo 1 > /f\nFROM scratch AS two\nCOPY --from=one /f /a\nCOPY --from=0 /f /b\nFROM scratch\nCOPY --from=two / /all/',
  'FROM base AS one\nENV A=1\nFROM one\nRUN echo $A > /f',
  'FROM base\nCOPY --from=base /etc/passwd /copied',
];

/** One entry of a tree, without times. */
type Listing = Map<string, string>;

/** What both engines make to mount on, and what only one of them notes. */
const NOT_OURS = /^(dev|proc|sys|etc$|etc\/(hosts|hostname|resolv\.conf|mtab)|\.dockerenv)($|\/)/;

function list(chunks: Iterable<Buffer>): Listing {
  const listing: Listing = new Map();
  let name = '';
  let data: Buffer[] = [];
  let text = '';
  const reader = new TarReader({
    entry(header) {
      name = header.name.replace(/\/$/, '').replace(/^\.\//, '');
      data = [];
      const { type, mode, uid, gid, linkName } = header;
      text = `${type} ${mode.toString(8)} ${uid}:${gid} ${linkName.replace(/^\//, '')}`;
    },
    data: (bytes) => void data.push(Buffer.from(bytes)),
    end() {
      // Which of several names of a file comes first is each engine's own choice.
      if (!NOT_OURS.test(name) && name !== '')
        listing.set(name, `${text} ${data.length > 0 ? digestOf(Buffer.concat(data)) : ''}`.trim());
    },
  });
  for (const chunk of chunks) reader.push(chunk);
  reader.finish();
  return listing;
}

/** The fields that Dockerfiles decide; absent, null and empty are one. */
function comparable(config: ImageConfig): object {
  const keys = [
    'Env',
    'Cmd',
    'Entrypoint',
    'ExposedPorts',
    'Volumes',
    'WorkingDir',
    'User',
    'Labels',
    'StopSignal',
    'Shell',
    'Healthcheck',
    'OnBuild',
  ] as const;
  const isEmpty = (value: unknown): boolean =>
    value === undefined ||
    value === null ||
    value === '' ||
    (typeof value === 'object' && Object.keys(value).length === 0);
  return Object.fromEntries(keys.flatMap((key) => (isEmpty(config[key]) ? [] : [[key, config[key]]])));
}

describeHere('a Dockerfile built by us and by dockerd', () => {
  const never = new AbortController().signal;
  let store: TestImages;
  let builds: Builds;
  let dockerd: Dockerd;

  beforeAll(async () => {
    store = await testImages();
    builds = buildsOver(store);
    await builds.open();
    dockerd = new Dockerd();
    await dockerd.ready();
    const tar = tarOf([...BASE, file('bin/busybox', readFileSync('/bin/busybox'), { mode: 0o755 })]);
    await store.images.importRoot(
      Readable.from([tar]),
      { reference: 'base', changes: ['CMD ["/bin/sh"]', 'ENV PATH=/bin'] },
      () => {},
    );
    // Both start from the very same image.
    const answer = await dockerd.send(
      'POST',
      '/images/load',
      await readAll(await store.images.save(['base'])),
    );
    expect(answer.body.toString()).toContain('Loaded image: base:latest');
  });
  afterAll(async () => {
    await dockerd?.close();
    await store?.dispose();
  });

  async function ours(dockerfile: string): Promise<{ image: Image; files: Listing }> {
    const id = await builds.build({
      options: NO_WISHES,
      source: (scratch) =>
        builds.receive(
          Readable.from([tarOf([...CONTEXT, file('Dockerfile', dockerfile)])]),
          'Dockerfile',
          scratch,
          never,
        ),
      runner: chrootRunner(store),
      credentialsFor: () => undefined,
      progress: () => {},
      signal: never,
    });
    const look = randomUUID();
    await store.roots.create(look, id);
    try {
      return {
        image: await store.images.get(id),
        files: list(packTree(await store.roots.mount(look), { overlay: false })),
      };
    } finally {
      await store.roots.remove(look);
    }
  }

  async function theirs(
    dockerfile: string,
  ): Promise<{ config: ImageConfig; author: string; files: Listing }> {
    const context = tarOf([...CONTEXT, file('Dockerfile', dockerfile)]);
    const answer = await dockerd.send('POST', '/build?networkmode=none&forcerm=1', context);
    // One of each stage; the image is the last.
    const id = [...answer.body.toString().matchAll(/"aux":\{"ID":"(sha256:[0-9a-f]{64})"\}/g)].at(-1)?.[1];
    if (id === undefined) throw new Error(answer.body.toString());
    const { Config, Author } = await dockerd.json<{ Config: ImageConfig; Author: string }>(
      'GET',
      `/images/${id}/json`,
    );
    const { Id } = await dockerd.json<{ Id: string }>('POST', '/containers/create', {
      Image: id,
      Cmd: ['x'],
      HostConfig: { NetworkMode: 'none' },
    });
    const exported = await dockerd.send('GET', `/containers/${Id}/export`);
    await dockerd.send('DELETE', `/containers/${Id}?v=1&force=1`);
    return { config: Config, author: Author, files: list([exported.body]) };
  }

  // Side by side: dockerd mostly waits, for its containers and its disk.
  it.concurrent.each(DOCKERFILES)('%j', async (dockerfile) => {
    const [we, they] = await Promise.all([ours(dockerfile), theirs(dockerfile)]);
    expect(comparable(we.image.config)).toEqual(comparable(they.config));
    expect(we.image.author ?? '').toBe(they.author);
    expect(Object.fromEntries(we.files)).toEqual(Object.fromEntries(they.files));
  });
});
