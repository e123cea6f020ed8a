// Runs in a container, by `node -e`: keeps FLOWS connections to the host's PORT, talks on each in turn, and gives one up for a new one
// now and then. Prints a line of JSON each second.
const { connect } = require('node:net');

const [port, count] = process.argv.slice(1).map(Number);
const WORDS_PER_S = 100;
const CHANGES_PER_S = 10;
const OPENED_PER_TURN = 20;
const TURN_MS = 50;

const flows = [];
let opened = 0;
let failed = 0;
let talks = 0;
let roundTripsMs = [];

function open(index) {
  const socket = connect(port, 'host.docker.internal', () => opened++);
  flows[index] = socket;
  socket.setNoDelay(true);
  socket.on('data', () => {
    if (socket.askedMs !== undefined) roundTripsMs.push(performance.now() - socket.askedMs);
    socket.askedMs = undefined;
  });
  // Given up by us, its end is no failure.
  socket.on('error', () => {});
  socket.on('close', () => {
    if (flows[index] !== socket) return;
    failed++;
    open(index);
  });
}

let next = 0;
let changed = 0;
const owed = { words: 0, changes: 0 };
setInterval(() => {
  for (let i = 0; i < OPENED_PER_TURN && flows.length < count; i++) open(flows.length);
  if (flows.length < count) return;
  owed.words += (WORDS_PER_S * TURN_MS) / 1000;
  owed.changes += (CHANGES_PER_S * TURN_MS) / 1000;
  for (; owed.words >= 1; owed.words--) {
    const socket = flows[next++ % count];
    if (socket.pending || socket.askedMs !== undefined) continue;
    socket.askedMs = performance.now();
    socket.write('a word');
    talks++;
  }
  for (; owed.changes >= 1; owed.changes--) {
    const index = changed++ % count;
    const before = flows[index];
    open(index);
    before.end();
  }
}, TURN_MS);

setInterval(() => {
  const sorted = roundTripsMs.sort((a, b) => a - b);
  const at = (share) => sorted[Math.floor(sorted.length * share)] ?? 0;
  const held = flows.filter((socket) => !socket.pending && !socket.destroyed).length;
  console.log(JSON.stringify({ held, opened, failed, talks, p50: at(0.5), p99: at(0.99) }));
  roundTripsMs = [];
}, 1000);
