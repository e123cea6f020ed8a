/**
 * TCP connections of a network namespace, ended from outside: sock_diag(7) with SOCK_DESTROY, which resets both ends
 * (include/uapi/linux/inet_diag.h). A kernel without it, CONFIG_INET_DIAG_DESTROY, says EOPNOTSUPP.
 */
import { closeSync, readFileSync, readSync, writeSync } from 'node:fs';
import { SyscallError } from '../errors.ts';
import { inNetworkNamespace } from './ifconfig.ts';
import { cFunction, check, errnoName } from './libc.ts';

const socketCall = cFunction('socket', 'int', ['int', 'int', 'int']);

const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0x80000;
const NETLINK_SOCK_DIAG = 4;
const SOCK_DESTROY = 21;
const NLM_F_REQUEST_ACK = 1 | 4;
const IPPROTO_TCP = 6;
/** struct nlmsghdr and struct inet_diag_req_v2. */
const HEADER_BYTES = 16;
const REQUEST_BYTES = HEADER_BYTES + 56;

/** States of /proc/net/tcp that are no connections: TIME_WAIT, CLOSE, LISTEN. */
const NOT_CONNECTED: ReadonlySet<string> = new Set(['06', '07', '0A']);

/** One connection; addresses in network order. */
interface Connection {
  family: number;
  local: Buffer;
  localPort: number;
  remote: Buffer;
  remotePort: number;
}

/** The connections of the namespace that a process is in. @throws Node's errors when it has gone */
function connectionsOf(pid: number): Connection[] {
  return ['tcp', 'tcp6'].flatMap((file) =>
    readFileSync(`/proc/${pid}/net/${file}`, 'latin1')
      .split('\n')
      .slice(1)
      .flatMap((line): Connection[] => {
        const [, local = '', remote = '', state = ''] = line.trim().split(/\s+/);
        if (state === '' || NOT_CONNECTED.has(state)) return [];
        const [localAddress = '', localPort = ''] = local.split(':');
        const [remoteAddress = '', remotePort = ''] = remote.split(':');
        return [
          {
            family: file === 'tcp' ? AF_INET : AF_INET6,
            // Each 32 bits are in the machine's order.
            local: Buffer.from(localAddress, 'hex').swap32(),
            localPort: Number.parseInt(localPort, 16),
            remote: Buffer.from(remoteAddress, 'hex').swap32(),
            remotePort: Number.parseInt(remotePort, 16),
          },
        ];
      }),
  );
}

const MAPPED = Buffer.from('00000000000000000000ffff', 'hex');

/** An address as text; IPv4 also where a socket of both families has it. */
function addressText(address: Buffer): string {
  if (address.length === 4) return address.join('.');
  if (address.subarray(0, 12).equals(MAPPED)) return address.subarray(12).join('.');
  return Array.from({ length: 8 }, (_, index) => address.readUInt16BE(2 * index).toString(16)).join(':');
}

function destroyRequest({ family, local, localPort, remote, remotePort }: Connection): Buffer {
  const request = Buffer.alloc(REQUEST_BYTES);
  request.writeUInt32LE(REQUEST_BYTES, 0);
  request.writeUInt16LE(SOCK_DESTROY, 4);
  request.writeUInt16LE(NLM_F_REQUEST_ACK, 6);
  request[HEADER_BYTES] = family;
  request[HEADER_BYTES + 1] = IPPROTO_TCP;
  // All states; then struct inet_diag_sockid: ports, addresses, interface, and a cookie that means any.
  request.writeUInt32LE(0xffff_ffff, HEADER_BYTES + 4);
  request.writeUInt16BE(localPort, HEADER_BYTES + 8);
  request.writeUInt16BE(remotePort, HEADER_BYTES + 10);
  local.copy(request, HEADER_BYTES + 12);
  remote.copy(request, HEADER_BYTES + 28);
  request.fill(0xff, HEADER_BYTES + 48);
  return request;
}

/**
 * Resets the connections of the network namespace that a process is in.
 *
 * @param spared tells by the address of the other end which go on
 * @returns how many were reset
 * @throws SyscallError EOPNOTSUPP where the kernel can't, and what inNetworkNamespace throws
 */
export function cutConnections(pid: number, spared: (remote: string) => boolean): number {
  const doomed = connectionsOf(pid).filter(({ remote }) => !spared(addressText(remote)));
  if (doomed.length === 0) return 0;
  return inNetworkNamespace(`/proc/${pid}/ns/net`, () => {
    const fd = check(socketCall(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG), 'socket');
    try {
      return doomed.filter((connection) => destroy(fd, connection)).length;
    } finally {
      closeSync(fd);
    }
  });
}

/** False when it has ended by itself. */
function destroy(fd: number, connection: Connection): boolean {
  writeSync(fd, destroyRequest(connection));
  const answer = Buffer.alloc(256);
  readSync(fd, answer, 0, answer.length, null);
  // struct nlmsgerr: 0 or -errno.
  const error = answer.readInt32LE(HEADER_BYTES);
  if (error === 0) return true;
  const name = errnoName(-error);
  if (name === 'ENOENT') return false;
  throw new SyscallError('SOCK_DESTROY', name, -error);
}
