// Fuzzing for as long as one likes: the property tests of everything that takes in bytes of strangers, each for a time, with other
// inputs in each run. CI runs the same tests with few inputs. Those of the API and of records on disk keep what fails in
// test/corpus, where it is tried first from then on; the others print a seed and a path. The API and records on disk need root.
//
//   npm run fuzz                                     a minute for each property
//   npm run fuzz -- --seconds 600 --only http-api    ten minutes for the API
//   npm run fuzz -- --seed 7                         the inputs of an earlier run
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const PRELOAD = fileURLToPath(new URL('../test/support/faults/fuzz.mjs', import.meta.url));

/** What is fuzzed, and its tests: files, or folders of them. */
const TARGETS = {
  frames: [
    'test/netstack',
    'test/sim',
    'netstack/wire/packets.test.ts',
    'netstack/wire/tcp.test.ts',
    'netstack/link',
  ],
  dhcp: [
    'netstack/wire/dhcp.test.ts',
    'netstack/service/dhcp-server.test.ts',
    'netstack/service/dhcpv6-server.test.ts',
  ],
  dns: ['netstack/wire/dns.test.ts', 'netstack/service/dns'],
  ntp: ['netstack/wire/ntp.test.ts'],
  fuse: ['test/fsbridge/session.test.ts', 'test/fsbridge/fuse-t.test.ts'],
  'http-api': ['test/e2e/api-fuzz.test.ts'],
  dockerfiles: [
    'test/daemon/parser-fuzz.test.ts',
    'daemon/build/dockerfile.test.ts',
    'daemon/build/buildkit/filesync.test.ts',
  ],
  images: ['test/daemon/parser-fuzz.test.ts', 'daemon/image'],
  'json-state': ['test/interop/state-fuzz.test.ts'],
};

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    only: { type: 'string', default: Object.keys(TARGETS).join(',') },
  },
});

const files = options.only.split(',').flatMap((name) => {
  if (!TARGETS[name]) throw new Error(`there is no target ${name}: ${Object.keys(TARGETS).join(', ')}`);
  return TARGETS[name];
});
process.stderr.write(`seed ${options.seed}\n`);
const { status } = spawnSync(
  process.execPath,
  [
    'node_modules/vitest/vitest.mjs',
    'run',
    ...files,
    `--testTimeout=${120_000 + 2000 * Number(options.seconds)}`,
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import ${PRELOAD}`,
      DRYDOCK_FUZZ_SEED: options.seed,
      DRYDOCK_FUZZ_SECONDS: options.seconds,
    },
  },
);
process.exit(status ?? 1);
