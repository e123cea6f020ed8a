// Preloaded into the daemon (`node --import`): writes how late its event loop was, once a second, to the file that SOAK_DELAYS names:
// a line of JSON in milliseconds. Its threads and children are not measured.
import { appendFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

const file = process.env.SOAK_DELAYS;
const RESOLUTION_MS = 10;
const NS_PER_MS = 1e6;

if (isMainThread && file) {
  delete process.env.SOAK_DELAYS;
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delays.enable();
  setInterval(() => {
    // A sample is the time between two turns: what is above the resolution is lateness.
    const ms = (value) => Math.max(0, value / NS_PER_MS - RESOLUTION_MS);
    const line = { p50: ms(delays.percentile(50)), p99: ms(delays.percentile(99)), max: ms(delays.max) };
    delays.reset();
    appendFileSync(file, `${JSON.stringify(line)}\n`);
  }, 1000).unref();
}
