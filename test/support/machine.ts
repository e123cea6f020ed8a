/**
 * A virtual machine as far as its wire is concerned: the kernel of a network namespace behind a plain TAP (no offloads, as
 * with most hypervisors), whose frames a process in the namespace carries over the socket that is tested.
 */
import { compiledEntry } from '#common/entry';
import type { Netns, Running } from './netns.ts';

/** How the machine reaches the network. */
export interface MachineWire {
  protocol: 'qemu' | 'hyperkit' | 'connect' | 'vpnkit' | 'bess' | 'vfkit';
  /** The unix socket to connect to, or a TCP port of 127.0.0.1 that is reachable from the namespace's process. */
  path: string;
  mtuBytes: number;
  /** What is said before the first frame, in Latin-1, in place of the protocol's usual words. */
  greeting?: string;
}

const module = (name: string): string => JSON.stringify(compiledEntry(name));

/** What is said before the first frame, and how long the answer is. */
const GREETINGS = {
  qemu: ['', 0],
  hyperkit: ['', 0],
  connect: ['POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n', 0],
  vpnkit: [`VMN3T\x16\0\0\0${'c'.repeat(40)}\x01${'0'.repeat(36)}\0\0\0\0`, 49 + 258],
  bess: ['', 0],
  vfkit: ['VFKT', 0],
} as const;

/** Starts the machine's wire; the interface is `eth0`, up, without an address. Prints `up` when frames flow. */
export async function startMachine(netns: Netns, wire: MachineWire): Promise<Running> {
  const { protocol, path, mtuBytes } = wire;
  const [usual, answerLen] = GREETINGS[protocol];
  const { greeting = usual } = wire;
  const type = protocol === 'bess' ? 'seqpacket' : protocol === 'vfkit' ? 'datagram' : 'stream';
  const script = `
    import { openTap } from ${module('common/native/tap')};
    import * as socket from ${module('common/native/socket')};
    import { Poller } from ${module('netstack/host/poller')};
    import { TapLink } from ${module('netstack/link/tap')};
    import { PacketLink } from ${module('netstack/link/packet')};
    import { LE16_FRAMING, QEMU_FRAMING, StreamLink } from ${module('netstack/link/stream')};
    import { execFileSync } from 'node:child_process';
    const poller = new Poller();
    const tap = new TapLink(poller, openTap('eth0', 10, false), ${mtuBytes});
    execFileSync('ip', ['link', 'set', 'eth0', 'up', 'mtu', '${mtuBytes}', 'txqueuelen', '4096']);
    const fd = socket.openUnixSocket('${type}');
    if (${protocol === 'vfkit'}) socket.bindUnix(fd, ${JSON.stringify(path)} + '.vm');
    socket.connectUnix(fd, ${JSON.stringify(path)});
    const greeting = Buffer.from(${JSON.stringify(greeting)}, 'latin1');
    if (greeting.length > 0) socket.send(fd, greeting, 0, greeting.length);
    const answer = Buffer.alloc(${answerLen});
    for (let got = 0; got < answer.length; ) got += Math.max(0, socket.receive(fd, answer, got, answer.length - got));
    const ended = () => process.exit(0);
    const common = { poller, mtuBytes: ${mtuBytes}, ended };
    const link = ${type !== 'stream'}
      ? new PacketLink({ ...common, fd, connectionOriented: ${protocol === 'bess'} })
      : new StreamLink({ ...common, readFd: fd, writeFd: fd, framing: ${protocol === 'qemu'} ? QEMU_FRAMING : LE16_FRAMING });
    const pass = (to) => ({ frame: (buf, off, end) => to.send(buf, off, end - off, undefined, 0, 0) });
    tap.start(pass(link));
    link.start(pass(tap));
    process.stdout.write('up\\n' + answer.toString('hex', 49 + 5, 49 + 11) + '\\n');
    for (;;) {
      poller.wait(100);
      poller.dispatch();
      link.flush();
      tap.flush();
    }`;
  const running = netns.start(process.execPath, '--input-type=module', '-e', script);
  await running.line(/^up$/);
  return running;
}
