// Compiles the sources to dist/. Under `npm ci --omit=dev` there is no compiler: then a dist/ that is there is enough.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';

const tsc = new URL('../node_modules/typescript/bin/tsc', import.meta.url);
if (!existsSync(tsc)) {
  if (existsSync(new URL('../dist/daemon/bin.js', import.meta.url))) process.exit(0);
  console.error('drydock: no compiler and no dist/: run `npm ci` without --omit=dev once to build it.');
  process.exit(1);
}
const { status } = spawnSync(process.execPath, [tsc.pathname, '-p', 'tsconfig.build.json'], {
  cwd: new URL('..', import.meta.url),
  stdio: 'inherit',
});
if (status !== 0) process.exit(status ?? 1);
cpSync(
  new URL('../daemon/dashboard/page', import.meta.url),
  new URL('../dist/daemon/dashboard/page', import.meta.url),
  {
    recursive: true,
  },
);
// The program asks npm for its man pages here (package.json), so they are part of a build.
const { manPages } = await import('../dist/daemon/command/man.js');
const { wholeProgram } = await import('../dist/daemon/command/whole.js');
const folder = new URL('../dist/man/', import.meta.url);
mkdirSync(folder, { recursive: true });
const epochS = Number(process.env.SOURCE_DATE_EPOCH ?? Date.now() / 1000);
const day = new Date(epochS * 1000).toISOString().slice(0, 10);
const { program, version } = await wholeProgram();
for (const { name, text } of manPages(program, version, day)) writeFileSync(new URL(name, folder), text);
