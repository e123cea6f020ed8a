/** What `npm install drydock` would give: this tree packed, and installed in an empty folder. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Other versions of Node that the package promises to run with, as packages of npm. */
export const OTHER_NODES: readonly string[] = ['22.23.3', '24.21.0'];

/** Installs a version of Node, from npm's cache where it is there. @returns the folder that has `node` */
export async function installNode(version: string, folder: string): Promise<string> {
  const name = `node-${process.platform}-${process.arch}`;
  const flags = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--no-save'];
  await run('npm', ['install', '--prefix', folder, ...flags, `${name}@${version}`]);
  return join(folder, 'node_modules', name, 'bin');
}

/** An installed package. */
export interface Installed {
  /** The folder with its `node_modules`. */
  folder: string;
  /** The program's entry, and the folder in which `drydock` is a command. */
  entry: string;
  binFolder: string;
  /** Size of the packed file. */
  packedBytes: number;
  /** What npm said while it installed: warnings. */
  warnings: string;
  remove(): void;
}

/** Packs what was built and installs it. No script of a package runs: what needs one is not prebuilt, and fails. */
export async function installPackage(): Promise<Installed> {
  const folder = mkdtempSync(join(tmpdir(), 'drydock-installed-'));
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  const packed = await run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], {
    cwd: root,
    maxBuffer: 16 * 1024 * 1024,
  });
  const [{ filename }] = JSON.parse(packed.stdout) as [{ filename: string }];
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  const flags = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'];
  const { stderr } = await run('npm', ['install', ...flags, join(folder, filename)], { cwd: folder });
  return {
    folder,
    entry: join(folder, 'node_modules/drydock/dist/daemon/bin.js'),
    binFolder: join(folder, 'node_modules/.bin'),
    packedBytes: statSync(join(folder, filename)).size,
    warnings: stderr,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
