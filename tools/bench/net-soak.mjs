// Hours of one network: bulk, round trips, datagrams, connections that come and go, in and out, round after round, and what
// stays behind in its process. Fails when there are more descriptors in the second half than in the first, or when memory still
// grows. Mappings of UDP stay for five minutes after their last datagram: a run of less than ten cannot tell.
//
//   npm run soak:net                       an hour
//   npm run soak:net -- --minutes 5
//   npm run soak:net -- --json             one JSON document and nothing else
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { measures, PUBLISHED } from './net/measures.mjs';
import { openDescriptors, peers, residentBytes, withPeer } from './net/peers.mjs';

const { values: options } = parseArgs({
  options: { minutes: { type: 'string', default: '60' }, json: { type: 'boolean', default: false } },
});
if (process.getuid() !== 0) {
  console.error('soak:net makes network namespaces: run it as root.');
  process.exit(1);
}

const ROUND = [
  'TCP up x8, MTU 65520',
  'TCP down x8, MTU 65520',
  'Round trips, 1 byte, 32 at once',
  'New connections, 32 at once',
  'UDP echo, 64 bytes, 32 at once',
  'Published port, in',
  'Published port, new connections, 32 at once',
].map((name) => measures.find((measure) => measure.name === name));
/** TIME-WAIT ends, garbage is collected, mappings of clients that have gone stay for a while yet. */
const SETTLE_MS = 3000;
/** Memory after the second half may exceed what it was after the first by so much. */
const GROWTH_BYTES_MAX = 8e6;

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
const bytes = (rounds) => median(rounds.map(({ residentBytes: resident }) => resident));

async function soak(peer, endAt) {
  const rounds = [];
  let connections = 0;
  while (rounds.length < 4 || Date.now() < endAt) {
    for (const measure of ROUND) {
      const { value } = await measure.run(peer, 1);
      // The probe's second of warm-up makes as many.
      if (measure.name.includes('ew connections')) connections += Math.round(2 * value);
    }
    await pause(SETTLE_MS);
    const now = {
      connections,
      residentBytes: residentBytes(peer.pid),
      descriptors: openDescriptors(peer.pid),
    };
    rounds.push(now);
    if (!options.json)
      console.log(
        `round ${rounds.length}: ${connections} connections, ${(now.residentBytes / 1e6).toFixed(1)} MB, ${now.descriptors} descriptors`,
      );
  }
  return rounds;
}

const root = fileURLToPath(new URL('../..', import.meta.url));
const [ours] = peers(root);
let rounds;
await withPeer(ours, 65520, PUBLISHED, undefined, async (peer) => {
  rounds = await soak(peer, Date.now() + 60_000 * Number(options.minutes));
});
const half = rounds.length >> 1;
const growthBytes = bytes(rounds.slice(half)) - bytes(rounds.slice(0, half));
const most = (some) => Math.max(...some.map(({ descriptors: open }) => open));
const descriptors = most(rounds.slice(half)) - most(rounds.slice(0, half));
const passed = growthBytes <= GROWTH_BYTES_MAX && descriptors <= 0;
if (options.json) console.log(JSON.stringify({ rounds, growthBytes, descriptors, passed }, undefined, 1));
else
  console.log(`second half against first: ${(growthBytes / 1e6).toFixed(1)} MB, ${descriptors} descriptors`);
process.exitCode = passed ? 0 : 1;
