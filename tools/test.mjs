// The one test command: builds, then runs every test. End-to-end tests drive dist/, hence the build.
import { spawnSync } from 'node:child_process';

const root = new URL('..', import.meta.url);
const run = (args) => {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
};
run(['tools/build.mjs']);
run(['node_modules/vitest/vitest.mjs', 'run', ...process.argv.slice(2)]);
