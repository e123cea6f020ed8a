/**
 * A utun interface with a rule of pf(4) that sends one user's packets to it: how a container without a network namespace
 * could have a network of its own. The rule stands in an anchor that the system's rules call.
 */
import type { Bench, Ended } from './bench.ts';

/** Called by /etc/pf.conf as Apple ships it. */
const ANCHOR = 'com.apple/drydock-probe';
const OWN = '198.18.0.1';
const PEER = '198.18.0.2';

async function must(ended: Promise<Ended>): Promise<string> {
  const { code, stdout, stderr } = await ended;
  if (code !== 0) throw new Error(stderr.trim() || `exit code ${code}`);
  return `${stdout}${stderr}`;
}

/** Has interface and rule for as long as `use` takes. The interface ends with its descriptor. */
export async function withPfRoute<T>(
  bench: Bench,
  uid: number,
  use: (utun: { fd: number; name: string }) => Promise<T>,
): Promise<T> {
  const utun = bench.calls.openUtun();
  try {
    await must(bench.run('ifconfig', [utun.name, OWN, PEER, 'up']));
    // pfctl(8) counts those who want pf, and gives each a token to let go of it.
    const token = /Token : (\d+)/.exec(await must(bench.run('pfctl', ['-E'])))?.[1];
    try {
      const rule = `pass out route-to (${utun.name} ${PEER}) inet proto { tcp udp } all user ${uid} keep state\n`;
      await must(bench.run('pfctl', ['-a', ANCHOR, '-f', '-'], { input: rule }));
      return await use(utun);
    } finally {
      await bench.run('pfctl', ['-a', ANCHOR, '-F', 'all']);
      if (token !== undefined) await bench.run('pfctl', ['-X', token]);
    }
  } finally {
    bench.calls.close(utun.fd);
  }
}
