// Compiles the sources to dist/. Under `npm ci --omit=dev` there is no compiler: then a dist/ that is there is enough.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

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
process.exit(status ?? 1);
