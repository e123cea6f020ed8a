// Plays a hypervisor: carries the frames of a plain TAP in this namespace over a unix stream, four-byte lengths before them, as
// QEMU does. Usage: vm-wire.mjs ROOT SOCKET ADDRESS/PREFIX GATEWAY. Prints `up`.
import { execFileSync } from 'node:child_process';
import { pathToFileURL } from 'node:url';

const [root, path, address, gateway] = process.argv.slice(2);
const load = (module) => import(pathToFileURL(`${root}/dist/${module}.js`));
const { openTap } = await load('common/native/tap');
const socket = await load('common/native/socket');
const { Poller } = await load('netstack/host/poller');
const { TapLink } = await load('netstack/link/tap');
const { QEMU_FRAMING, StreamLink } = await load('netstack/link/stream');

const MTU = 1500;
const poller = new Poller();
const tap = new TapLink(poller, openTap('eth0', 10, false), MTU);
const ip = (...args) => execFileSync('ip', args);
ip('link', 'set', 'eth0', 'up', 'txqueuelen', '4096');
ip('addr', 'add', address, 'dev', 'eth0');
ip('route', 'add', 'default', 'via', gateway);
const fd = socket.openUnixSocket('stream');
socket.connectUnix(fd, path);
const link = new StreamLink({
  poller,
  framing: QEMU_FRAMING,
  readFd: fd,
  writeFd: fd,
  mtuBytes: MTU,
  ended: () => process.exit(),
});
const pass = (to) => ({ frame: (buf, off, end) => to.send(buf, off, end - off, undefined, 0, 0) });
tap.start(pass(link));
link.start(pass(tap));
console.log('up');
for (;;) {
  poller.wait(100);
  poller.dispatch();
  link.flush();
  tap.flush();
}
