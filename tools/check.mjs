// All static checks: format and lint (with the import boundaries), types, dead code, lock file.
import { spawnSync } from 'node:child_process';

const root = new URL('..', import.meta.url);
const steps = [
  ['node_modules/@biomejs/biome/bin/biome', 'ci', '--error-on-warnings', '.'],
  ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json', '--noEmit'],
  ['node_modules/knip/bin/knip.js'],
  ['tools/lockcheck.mjs'],
];
for (const [script, ...args] of steps) {
  console.log(`check: ${script} ${args.join(' ')}`);
  const { status } = spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
