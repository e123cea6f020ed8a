/** Builds as a whole: what comes from the cache, what is said, what is refused and what is left then. */
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BuildOptions, NO_WISHES } from '../../daemon/build/options.ts';
import { chrootRunner } from '../support/chroot-runner.ts';
import { CONTEXT, Dockerfiles, listing, never } from '../support/dockerfiles.ts';
import { file, tarOf } from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const describeHere = describe.skipIf(lacking('root'));

let dockerfiles: Dockerfiles;
beforeAll(async () => {
  dockerfiles = await Dockerfiles.open();
});
afterAll(() => dockerfiles.close());
const build: Dockerfiles['build'] = (...args) => dockerfiles.build(...args);
const inRoot: Dockerfiles['inRoot'] = (...args) => dockerfiles.inRoot(...args);

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
    const saved = await readAll(await dockerfiles.store.images.save(['cached']));
    await dockerfiles.store.images.remove('cached', { force: true, prune: true, users: () => [] });
    expect(steps((await build('FROM host\nENV UNRELATED=1')).output)).toBe(0);
    await dockerfiles.store.images.load(Readable.from([saved]), () => {});
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
    ['FROM host\nRUN --mount=type=cache x', 'target is required for mount type "cache"'],
    ['FROM host\nRUN --mount=type=what,target=/x x', 'unsupported mount type "what"'],
    ['FROM host\nRUN --mount=type=bind,target=/x,source=/none x', '"/none": not found'],
    ['FROM host\nRUN --mount=type=secret,id=s,required x', 'secret s: not found'],
    ['FROM host\nRUN --mount=type=ssh,required x', 'no SSH key "default" forwarded from the client'],
    ['FROM host\nRUN --network=host x', 'network.host is not allowed'],
    ['FROM host\nRUN --security=insecure x', 'security.insecure is not allowed'],
    ['FROM host\nRUN --device=x x', 'unknown flag: --device'],
    ['FROM host\nADD --checksum=sha256:00 $URL/f.txt /', 'invalid checksum'],
    [`FROM host\nADD --checksum=sha256:${'0'.repeat(64)} $URL/f.txt /`, 'digest mismatch sha256:'],
    [
      `FROM host\nADD --checksum=sha256:${'0'.repeat(64)} a.txt /`,
      'checksum can only be given for an HTTP source',
    ],
    ['FROM host\nADD git@example.com:a/b.git /', "repositories by ssh can't be fetched"],
    ['FROM host\nADD git://127.0.0.1:1/none.git /', 'failed to fetch remote git://127.0.0.1:1/none.git'],
    ['FROM host\nCOPY a.txt', 'COPY requires at least two arguments, but only 1 was provided'],
    ['FROM host\nCOPY a.txt b.txt /x', 'the destination must be a directory and end with a /'],
    [
      'FROM host\nCOPY nothing /x',
      'COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist',
    ],
    ['FROM host\nCOPY no*thing /x', 'COPY failed: no source files were specified'],
    ['FROM host\nCOPY --from=5 /a /b', 'invalid from flag value 5: invalid stage index or name'],
    ['FROM host\nCOPY --chown=nosuchuser a.txt /x', "can't find uid for user nosuchuser"],
    ['FROM host\nCOPY --chmod=u+q a.txt /x', '--chmod=u+q is neither an octal mode nor a symbolic one'],
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
    const none = dockerfiles.builds.build({
      options: NO_WISHES,
      source: (scratch) =>
        dockerfiles.builds.receive(Readable.from([tarOf(CONTEXT)]), '../../etc/passwd', scratch, never),
      runner: chrootRunner(dockerfiles.store),
      credentialsFor: () => undefined,
      progress: () => {},
      signal: never,
    });
    await expect(none).rejects.toThrow('Cannot locate specified Dockerfile: ../../etc/passwd');
  });

  it('.dockerignore takes the two files of the build itself out of the context', async () => {
    const context = [file('.dockerignore', 'Dockerfile\n.dockerignore'), file('kept', '')];
    const { image } = await build('FROM scratch\nCOPY . /', { context });
    expect(await inRoot(image, (root) => listing(root, ''))).toBe('/ d755 0:0\n/kept f644 0:0');
  });

  it('a lone Dockerfile is a context too', async () => {
    const id = await dockerfiles.builds.build({
      options: { ...NO_WISHES, quiet: true },
      source: (scratch) =>
        dockerfiles.builds.receive(
          Readable.from([Buffer.from('FROM host\nENV LONE=1\n')]),
          'Dockerfile',
          scratch,
          never,
        ),
      runner: chrootRunner(dockerfiles.store),
      credentialsFor: () => undefined,
      progress: () => {},
      signal: never,
    });
    expect((await dockerfiles.store.images.get(id)).config.Env).toContain('LONE=1');
  });

  it('nothing of a failed build is left but its cache', async () => {
    const { readdirSync } = await import('node:fs');
    expect(readdirSync(`${dockerfiles.store.dataRoot}/build`)).toEqual([]);
    expect(readdirSync(`${dockerfiles.store.dataRoot}/overlay2/roots`)).toEqual([]);
    expect(readdirSync(`${dockerfiles.store.dataRoot}/image/content/ingest`)).toEqual([]);
  });
});
