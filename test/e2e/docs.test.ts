/**
 * The documentation, followed from the package as npm installs it in an empty folder: one daemon from there for the README and all
 * guides, and every command of theirs run by the shell of a reader.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { consoleSteps, outputPattern, runSteps } from '../support/e2e/console-block.ts';
import { TestDaemon } from '../support/e2e/daemon.ts';
import { type Installed, installNode, installPackage, OTHER_NODES } from '../support/e2e/installed.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { allPages, fences, readPage as read, repository } from '../support/e2e/pages.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { lacking } from '../support/requirements.ts';

const pages = allPages();
const tours = pages.filter((path) => consoleSteps(read(path)).length > 0);

/**
 * Blocks that no test runs as they stand: what they need is a clone of another project, another machine, a program that cannot be had
 * here, or the whole of CI. Everything else is run, here (`console`) or by docs-commands.test.ts (`sh`).
 */
const SHOWN_ONLY = [
  'README.md: npm ci &&',
  'CONTRIBUTING.md: npm ci ',
  'docs/guides/kubernetes.md: cri-dockerd --docker-endpoint unix:///run/drydock/docker.sock',
  'docs/guides/linux-on-macos.md: drydock net --listen',
  'docs/guides/macos.md: npm ci &&',
  'docs/guides/virtual-machines.md: drydock net --listen',
  'docs/reference/api.md: sudo -E DRYDOCK_TEST_SWAGGER=path/to/moby/api/docs',
  'docs/reference/net.md: $ drydock net',
  'docs/release.md: git clean -fdx',
  'docs/soak.md: npm run soak',
  'docs/trust.md: npm run trust',
];

/** Largest packed package: what is above is a file that does not belong there. */
const PACKED_BYTES_MAX = 1_300_000;

/** Where the tests' own Node is, and the packages of others. */
const nodes = [process.version, ...OTHER_NODES];
const scratch = mkdtempSync(join(tmpdir(), 'drydock-docs-'));
let installed: Installed;

beforeAll(async () => {
  if (!lacking(...E2E_NEEDS)) installed = await installPackage();
});
afterAll(() => {
  installed?.remove();
  rmSync(scratch, { recursive: true, force: true });
});

describeE2e('the package', () => {
  it('installs without scripts and without a warning, and is small', () => {
    const complaints = installed.warnings.split('\n').filter((line) => /EBADENGINE|deprecated/.test(line));
    expect(complaints).toEqual([]);
    expect(installed.packedBytes).toBeLessThan(PACKED_BYTES_MAX);
  });

  it('has libraries with types that a strict compiler accepts, and that load', () => {
    writeFileSync(
      join(installed.folder, 'use.ts'),
      `import { type Network, type NetworkOptions, createNetstack } from 'drydock/netstack';
import { mountFolder, mountStatus } from 'drydock/fsbridge';
import { type Daemon, openDaemon } from 'drydock/daemon';
const make: (options: NetworkOptions) => Promise<Network> = createNetstack;
const addresses = (daemon: Daemon): string[] => daemon.addresses;
console.log([make, mountFolder, mountStatus, openDaemon, addresses].map((value) => typeof value).join());
`,
    );
    const node = (...args: string[]): ReturnType<typeof spawnSync> =>
      spawnSync(process.execPath, args, { cwd: installed.folder, encoding: 'utf8' });
    const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', repository));
    const types = fileURLToPath(new URL('node_modules/@types', repository));
    const flags = ['--strict', '--module', 'nodenext', '--target', 'es2023', '--skipLibCheck', 'false'];
    const compiled = node(tsc, ...flags, '--typeRoots', types, '--types', 'node', 'use.ts');
    expect(`${compiled.stdout}${compiled.stderr}`).toBe('');
    const ran = node('use.js');
    expect(`${ran.stdout}${ran.stderr}`).toBe('function,function,function,function,function\n');
  });
});

describeE2e.each(nodes)('the package under Node %s', (version) => {
  const isOwn = version === process.version;
  let folder: string;
  let daemon: TestDaemon;
  let PATH: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(scratch, 'node-'));
    const nodeFolder = isOwn ? dirname(process.execPath) : await installNode(version, folder);
    PATH = [installed.binFolder, nodeFolder, process.env.PATH].join(':');
    const options = { entry: installed.entry, node: join(nodeFolder, 'node') };
    daemon = await TestDaemon.launch(undefined, [], options);
  });
  afterAll(async () => {
    const code = await daemon.stop();
    const litter = litterOf(daemon.address);
    TestDaemon.forget(daemon.address);
    expect([code, litter]).toEqual([0, []]);
  });

  it('gives npx drydock', () => {
    const { version: drydock } = JSON.parse(read('package.json')) as { version: string };
    const { stdout } = spawnSync('npx', ['--no-install', 'drydock', 'version'], {
      cwd: installed.folder,
      encoding: 'utf8',
      env: { ...process.env, PATH },
    });
    const shown = `v${version.replace('v', '')}, ${process.platform} ${process.arch}`;
    expect(stdout).toBe(`drydock ${drydock} (node ${shown})\n`);
  });

  it('is used by the examples as by any other program', () => {
    const examples = join(installed.folder, 'examples');
    cpSync(new URL('examples', repository), examples, { recursive: true });
    // Files by name, since Node's lines differ in what a folder means to --test; and in the reporter for a pipe.
    const files = readdirSync(examples).filter((file) => file.endsWith('.test.mjs'));
    const paths = files.map((file) => join('examples', file));
    const ran = spawnSync('node', ['--test', '--test-reporter=tap', ...paths], {
      cwd: installed.folder,
      encoding: 'utf8',
      env: { ...process.env, PATH },
    });
    expect(ran.stdout).toMatch(/^# pass [4-9]$/m);
    expect(ran.stdout).toMatch(/^# fail 0$/m);
  });

  it.each(isOwn ? tours : ['README.md'])('%s: every command prints what the page says', async (path) => {
    const cwd = mkdtempSync(join(folder, 'tour-'));
    const env = daemon.environment({ PATH, NO_COLOR: '1' });
    try {
      const steps = consoleSteps(read(path));
      const printed = await runSteps(steps, { cwd, env });
      for (const [at, { command, output }] of steps.entries())
        expect(printed[at], `$ ${command}`).toMatch(outputPattern(output));
    } finally {
      await daemon.removeAll();
    }
  });
});

describe('the documentation', () => {
  it('says below every command that is shown and not run why', () => {
    const found: string[] = [];
    for (const path of pages)
      for (const { info, text, below } of fences(read(path))) {
        if (!/^(sh|bash|shell|console)\b/.test(info) || info === 'console' || info === 'sh') continue;
        const [, reason] = /^\*Shown, not run: (.+)\*$/.exec(below) ?? [];
        expect([info, reason], `${path}: ${text}`).toEqual([
          expect.stringMatching(/ static$/),
          expect.any(String),
        ]);
        for (const [named] of reason!.matchAll(/[\w/-]+\.test\.ts/g)) expect(() => read(named)).not.toThrow();
        found.push(`${path}: ${text.split('\n')[0]!.split(' ').slice(0, 3).join(' ')}`);
      }
    expect(found).toEqual(SHOWN_ONLY);
  });

  it('shows programs as they are in the examples', () => {
    for (const path of pages)
      for (const { info, text } of fences(read(path))) {
        const [, file] = /^m?js (examples\/\S+)$/.exec(info) ?? [];
        if (file !== undefined) expect(read(file), `${path} shows ${file}`).toContain(text.trim());
      }
  });

  it('links to what exists', () => {
    for (const path of pages)
      for (const [, target] of read(path).matchAll(/\]\((?!\w+:)([^)#\s]+)(?:#[^)]*)?\)/g))
        expect(
          () => readFileSync(new URL(target!, new URL(path, repository))),
          `${path}: ${target}`,
        ).not.toThrow(/ENOENT/);
  });
});
