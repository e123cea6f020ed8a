// Echo servers for probe.mjs: TCP and UDP on the same port, blocking sockets and epoll called directly. Usage: echo.mjs HOST PORT
import koffi from 'koffi';

const [host, port] = process.argv.slice(2);
const libc = koffi.load(null);
const call = (name, ...types) => libc.func(name, 'int', types);
const socket = call('socket', 'int', 'int', 'int');
const bind = call('bind', 'int', 'void *', 'int');
const listen = call('listen', 'int', 'int');
const accept4 = call('accept4', 'int', 'int64', 'int64', 'int');
const send = call('send', 'int', 'void *', 'int64', 'int');
const recv = call('recv', 'int', 'void *', 'int64', 'int');
const recvfrom = call('recvfrom', 'int', 'void *', 'int64', 'int', 'void *', 'void *');
const sendto = call('sendto', 'int', 'void *', 'int64', 'int', 'void *', 'int');
const setsockopt = call('setsockopt', 'int', 'int', 'int', 'void *', 'int');
const close = call('close', 'int');
const epollCreate = call('epoll_create1', 'int');
const epollCtl = call('epoll_ctl', 'int', 'int', 'int', 'void *');
const epollWait = call('epoll_wait', 'int', 'void *', 'int', 'int');

const NONBLOCK = 0o4000;
const EVENT_LEN = process.arch === 'x64' ? 12 : 16;
const DATA_OFF = process.arch === 'x64' ? 4 : 8;
const on = Buffer.from([1, 0, 0, 0]);
const address = Buffer.alloc(16);
address.writeUInt16LE(2);
address.writeUInt16BE(Number(port), 2);
host.split('.').forEach((byte, index) => {
  address[4 + index] = Number(byte);
});
const open = (type) => {
  const fd = socket(2, type | NONBLOCK, 0);
  setsockopt(fd, 1, 2, on, 4);
  if (bind(fd, address, 16) !== 0) throw new Error(`bind: errno ${koffi.errno()}`);
  return fd;
};
const tcp = open(1);
const udp = open(2);
listen(tcp, 4096);
const epoll = epollCreate(0);
const event = Buffer.alloc(EVENT_LEN);
const watch = (fd) => {
  event.writeUInt32LE(1);
  event.writeInt32LE(fd, DATA_OFF);
  epollCtl(epoll, 1, fd, event);
};
watch(tcp);
watch(udp);
console.log('up');
const events = Buffer.alloc(EVENT_LEN * 256);
const buf = Buffer.alloc(2048);
const from = Buffer.alloc(16);
const fromLen = Buffer.alloc(4);
for (;;) {
  const count = epollWait(epoll, events, 256, 1000);
  for (let i = 0; i < count; i++) {
    const fd = events.readInt32LE(i * EVENT_LEN + DATA_OFF);
    if (fd === tcp) {
      for (let client = accept4(tcp, 0, 0, NONBLOCK); client >= 0; client = accept4(tcp, 0, 0, NONBLOCK)) {
        setsockopt(client, 6, 1, on, 4);
        watch(client);
      }
    } else if (fd === udp) {
      for (;;) {
        fromLen.writeUInt32LE(16);
        const length = recvfrom(udp, buf, 2048, 0, from, fromLen);
        if (length < 0) break;
        sendto(udp, buf, length, 0, from, 16);
      }
    } else {
      const length = recv(fd, buf, 2048, 0);
      if (length > 0) send(fd, buf, length, 0x4000);
      else if (length === 0 || koffi.errno() !== 11) close(fd);
    }
  }
}
