// Measures round trips from inside a namespace, with blocking sockets called directly: a client of Node's own would measure
// Node. Usage: probe.mjs rr|crr|udp HOST PORT SECONDS [PARALLEL]. Prints JSON: {count, total, seconds, p50Us, p99Us}; the total
// counts those of the warm-up too.
import koffi from 'koffi';

const [mode, host, port, seconds, parallel = '1'] = process.argv.slice(2);
const libc = koffi.load(null);
const call = (name, ...types) => libc.func(name, 'int', types);
const socket = call('socket', 'int', 'int', 'int');
const connect = call('connect', 'int', 'void *', 'int');
const send = call('send', 'int', 'void *', 'int64', 'int');
const recv = call('recv', 'int', 'void *', 'int64', 'int');
const close = call('close', 'int');
const setsockopt = call('setsockopt', 'int', 'int', 'int', 'void *', 'int');

const address = Buffer.alloc(16);
address.writeUInt16LE(2);
address.writeUInt16BE(Number(port), 2);
host.split('.').forEach((byte, index) => {
  address[4 + index] = Number(byte);
});
const one = Buffer.alloc(64, 'x');
const answer = Buffer.alloc(64);
const on = Buffer.from([1, 0, 0, 0]);
const timeout = Buffer.alloc(16);
timeout.writeUInt32LE(1);

function open(type) {
  const fd = socket(2, type, 0);
  if (connect(fd, address, 16) !== 0) throw new Error(`connect: errno ${koffi.errno()}`);
  if (type === 1) setsockopt(fd, 6, 1, on, 4);
  setsockopt(fd, 1, 20, timeout, 16);
  return fd;
}

/** Compilers on both sides, and caches, get this long before times count. */
const WARM_UP_NS = 1_000_000_000n;

const times = [];
let lost = 0;
let total = 0;
const begun = process.hrtime.bigint();
const started = begun + WARM_UP_NS;
const until = started + BigInt(Number(seconds) * 1e9);
const batch = Number(parallel);
const length = mode === 'udp' ? 64 : 1;
const fds = mode === 'crr' ? [] : Array.from({ length: batch }, () => open(mode === 'udp' ? 2 : 1));
for (let now = begun; now < until; ) {
  if (mode === 'crr') for (let i = 0; i < batch; i++) fds[i] = open(1);
  for (const fd of fds) send(fd, one, length, 0);
  for (const fd of fds) if (recv(fd, answer, 64, 0) <= 0) lost++;
  if (mode === 'crr') for (const fd of fds) close(fd);
  total += batch;
  const then = process.hrtime.bigint();
  if (now >= started) times.push(Number(then - now) / 1000);
  now = then;
}
const elapsed = Number(process.hrtime.bigint() - started) / 1e9;
times.sort((a, b) => a - b);
const quantile = (q) => times[Math.min(times.length - 1, Math.floor(times.length * q))];
console.log(
  JSON.stringify({
    count: times.length * batch,
    total,
    lost,
    seconds: elapsed,
    p50Us: quantile(0.5),
    p99Us: quantile(0.99),
  }),
);
