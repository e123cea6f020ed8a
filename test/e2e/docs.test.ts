/**
 * The documentation, followed from the package as npm installs it in an empty folder: one daemon from there for the README and all
 * guides, and every command of theirs run by the shell of a reader.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { consoleSteps, fences, outputPattern, runSteps } from '../support/e2e/console-block.ts';
import { TestDaemon } from '../support/e2e/daemon.ts';
import { type Installed, installPackage } from '../support/e2e/installed.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';

const root = new URL('../../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'ARCHITECTURE.md',
  ...readdirSync(new URL('docs/', root), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md'))
    .map((path) => `docs/${path}`)
    .sort(),
];
const tours = pages.filter((path) => consoleSteps(read(path)).length > 0);

/** Largest packed package: what is above is a file that does not belong there. */
const PACKED_BYTES_MAX = 1_300_000;

describeE2e('the package', () => {
  let installed: Installed;
  let daemon: TestDaemon;

  beforeAll(async () => {
    installed = await installPackage();
    daemon = await TestDaemon.launch(undefined, [], { entry: installed.entry });
  });
  afterAll(async () => {
    const code = await daemon.stop();
    const litter = litterOf(daemon.address);
    TestDaemon.forget(daemon.address);
    installed.remove();
    expect([code, litter]).toEqual([0, []]);
  });

  it('installs without scripts and without a warning, and is small', () => {
    const complaints = installed.warnings.split('\n').filter((line) => /EBADENGINE|deprecated/.test(line));
    expect(complaints).toEqual([]);
    expect(installed.packedBytes).toBeLessThan(PACKED_BYTES_MAX);
  });

  it('gives npx drydock', () => {
    const { version } = JSON.parse(read('package.json')) as { version: string };
    const { stdout } = spawnSync('npx', ['--no-install', 'drydock', 'version'], {
      cwd: installed.folder,
      encoding: 'utf8',
    });
    expect(stdout).toBe(
      `drydock ${version} (node ${process.version}, ${process.platform} ${process.arch})\n`,
    );
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
    const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', root));
    const types = fileURLToPath(new URL('node_modules/@types', root));
    const flags = ['--strict', '--module', 'nodenext', '--target', 'es2023', '--skipLibCheck', 'false'];
    const compiled = node(tsc, ...flags, '--typeRoots', types, '--types', 'node', 'use.ts');
    expect(`${compiled.stdout}${compiled.stderr}`).toBe('');
    const ran = node('use.js');
    expect(`${ran.stdout}${ran.stderr}`).toBe('function,function,function,function,function\n');
  });

  it('is used by the examples as by any other program', () => {
    const folder = join(installed.folder, 'examples');
    cpSync(new URL('examples', root), folder, { recursive: true });
    // Files by name, since Node's lines differ in what a folder means to --test; and in the reporter for a pipe.
    const files = readdirSync(folder).filter((file) => file.endsWith('.test.mjs'));
    const paths = files.map((file) => join('examples', file));
    const ran = spawnSync(process.execPath, ['--test', '--test-reporter=tap', ...paths], {
      cwd: installed.folder,
      encoding: 'utf8',
    });
    expect(ran.stdout).toMatch(/^# pass [4-9]$/m);
    expect(ran.stdout).toMatch(/^# fail 0$/m);
  });

  it.each(tours)('%s: every command prints what the page says', async (path) => {
    const folder = mkdtempSync(join(tmpdir(), 'drydock-docs-'));
    const env = daemon.environment({ PATH: `${installed.binFolder}:${process.env.PATH}`, NO_COLOR: '1' });
    try {
      const steps = consoleSteps(read(path));
      const printed = await runSteps(steps, { cwd: folder, env });
      for (const [at, { command, output }] of steps.entries())
        expect(printed[at], `$ ${command}`).toMatch(outputPattern(output));
    } finally {
      await daemon.removeAll();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('the documentation', () => {
  it('says of every command that is shown and not run why, or which test runs it', () => {
    for (const path of pages)
      for (const { info, text } of fences(read(path))) {
        if (!/^(sh|bash|shell|console)\b/.test(info) || info === 'console') continue;
        const [, reason] = /^\w+ static: (.{10,})$/.exec(info) ?? [];
        expect(reason, `${path}: ${info}: ${text.split('\n')[0]}`).toBeDefined();
        for (const [named] of reason!.matchAll(/\S+\.test\.ts/g))
          expect(() => read(named), path).not.toThrow();
      }
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
        expect(() => readFileSync(new URL(target!, new URL(path, root))), `${path}: ${target}`).not.toThrow(
          /ENOENT/,
        );
  });
});
