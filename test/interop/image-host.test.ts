/** The image made of this host's own programs: what is in it runs by itself, and nothing private is. */
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock';
import { nullLog } from '#common/log';
import { digestOf } from '../../daemon/image/content.ts';
import { pickHostTree } from '../../daemon/image/host-image.ts';
import { hostFiles } from '../../daemon/image/host-tree.ts';
import { ensureHostImage } from '../../daemon/image/index.ts';
import type { Image } from '../../daemon/image/store.ts';
import { readAll, type TestImages, testImages } from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root'));

let store: TestImages;
let image: Image;
let root: string;
beforeAll(async () => {
  store = await testImages();
  image = await ensureHostImage(store.images, nullLog, systemClock);
  await store.roots.create('host', image.id);
  root = await store.roots.mount('host');
});
afterAll(() => store.dispose());

/** Repeats what compares two looks at the host, should somebody install programs in between. */
async function undisturbed(work: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const before = pickHostTree().fingerprint();
    try {
      return await work();
    } catch (error) {
      if (attempt === 5 || pickHostTree().fingerprint() === before) throw error;
    }
  }
}

const run = (script: string): string =>
  execFileSync('chroot', [root, '/bin/sh', '-c', script], {
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
  }).toString();

describeHere('the host image', () => {
  it('says in docker images and inspect what it is', () => {
    expect(image.tags).toEqual(['drydock/host:latest']);
    expect(image.comment).toContain("host's own programs");
    expect(image.config.Cmd).toEqual(['/bin/bash']);
    expect(image.config.Env![0]).toMatch(/^PATH=.*\/usr\/bin/);
  });

  it('runs node, of this version', () => {
    expect(run('node --version')).toBe(`${process.version}\n`);
    expect(run(`node -p 'require("crypto").createHash("md5").update("a").digest("hex")'`)).toBe(
      '0cc175b9c0f1b6a831c399e269772661\n',
    );
  });

  it('runs the usual tools together', () => {
    expect(
      run("seq 5 | grep -v 3 | sed s/^/n/ | awk '{ print $1 }' | sort -r | head -n 1 | tr a-z A-Z"),
    ).toBe('N5\n');
    expect(
      run(
        'cd /tmp && mkdir d && echo hi > d/f && tar cz d | tar tz && find d -type f -exec cat {} + && rm -r d',
      ),
    ).toBe('d/\nd/f\nhi\n');
    expect(run('id -un; id -u node; getent hosts 127.0.0.1 >/dev/null; echo $((6*7))')).toBe(
      'root\n1000\n42\n',
    );
  });

  it('has every program that it holds in working order', () => {
    const broken = run(
      'for f in /bin/* /usr/bin/* /usr/sbin/* /usr/local/bin/*; do [ -x "$f" ] && [ -f "$f" ] && ldd "$f" 2>/dev/null | grep "not found" && echo "$f"; done; true',
    );
    expect(broken).toBe('');
  });

  it('keeps the merged /usr of the host, a sticky /tmp and an own passwd', () => {
    for (const name of ['/bin', '/sbin', '/lib'])
      if (lstatSync(name).isSymbolicLink()) expect(readlinkSync(`${root}${name}`)).toBe(readlinkSync(name));
    expect(lstatSync(`${root}/tmp`).mode & 0o7777).toBe(0o1777);
    expect(readFileSync(`${root}/etc/passwd`, 'utf8')).toMatch(/^root:x:0:0:root:\/root:\/bin\/bash$/m);
    expect(readFileSync(`${root}/etc/ssl/certs/ca-certificates.crt`, 'utf8')).toContain('BEGIN CERTIFICATE');
    for (const path of ['/etc/hostname', '/etc/machine-id', '/root/.ssh', '/etc/resolv.conf', '/home/user'])
      expect(existsSync(root + path)).toBe(false);
    expect(readFileSync(`${root}/etc/shadow`, 'utf8')).not.toContain('$');
  });

  it('is found again instead of being built again', async () => {
    await undisturbed(async () => {
      const found = await ensureHostImage(store.images, nullLog, systemClock);
      expect(await ensureHostImage(store.images, nullLog, systemClock)).toEqual(found);
    });
  });

  it('is built again when the tools have changed, and its forerunner goes', async () => {
    const other = await testImages();
    try {
      const empty = Readable.from([Buffer.alloc(1024)]);
      const changes = ['LABEL io.drydock.host.fingerprint=old'];
      const old = await other.images.importRoot(
        empty,
        { reference: 'drydock/host:latest', changes },
        () => {},
      );
      const built = await ensureHostImage(other.images, nullLog, systemClock);
      expect(built.tags).toEqual(['drydock/host:latest']);
      expect((await other.images.list()).map(({ id }) => id)).toEqual([built.id]);
      expect(built.id).not.toBe(old.id);
    } finally {
      await other.dispose();
    }
  });

  it('has the same bytes whenever it is made of the same files, and when it is packed again', async () => {
    await undisturbed(async () => {
      const { id } = await ensureHostImage(store.images, nullLog, systemClock);
      const { library } = store.images;
      const [layer] = library.layersOf(id);
      expect(digestOf(Buffer.concat([...hostFiles(pickHostTree().files())]))).toBe(layer!.diffId);
      expect(digestOf(await readAll(library.layerTar(layer!)))).toBe(layer!.diffId);
    });
  });

  it('is refused with the missing part named when node can not be taken along', () => {
    expect(() => pickHostTree('/nowhere/node')).toThrow(
      expect.objectContaining({ code: 'ERR_HOST_IMAGE', message: expect.stringContaining('/nowhere/node') }),
    );
  });
});
