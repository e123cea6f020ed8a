/** What `npm install drydock` would give: this tree packed, and installed in an empty folder. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

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
