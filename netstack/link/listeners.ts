/**
 * Sockets at which virtual machines plug into a network, one protocol each. What connects becomes a port of the switch,
 * behind software offload since these wires carry plain frames; what goes leaves it.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { DrydockError, errorCode } from '#common/errors';
import type { Log } from '#common/log';
import { EPOLLIN } from '#common/native/epoll';
import { errnoName } from '#common/native/libc';
import * as socket from '#common/native/socket';
import * as socketOptions from '#common/native/socket-options';
import type { Closable } from '../flow/host.ts';
import { hostError } from '../host/errors.ts';
import { ACCEPT_REST_MS } from '../host/native.ts';
import type { Poller } from '../host/poller.ts';
import { parseAddress } from '../wire/address.ts';
import type { Link } from './link.ts';
import { PacketLink } from './packet.ts';
import { httpConnectPreamble, type Preamble, type VmnetRegistry, vmnetPreamble } from './preamble.ts';
import { type Framing, LE16_FRAMING, QEMU_FRAMING, type StreamEnd, StreamLink } from './stream.ts';
import type { Switch, SwitchPort } from './switch.ts';

/** Machines on one network at a time. */
const MACHINES_MAX = 256;
const BACKLOG = 16;
/** vfkit's greeting, from before its first datagram was a frame. */
const VFKIT_HELLO = 'VFKT';
const DATAGRAM_BYTES_MAX = 65536;

/**
 * How a machine speaks. `qemu`: four-byte lengths. `hyperkit`: two-byte lengths, also gvproxy's stdio. `connect`: the
 * same after `POST /connect`. `vpnkit`: the same after the VMN3T handshake. `bess`: packets of a SOCK_SEQPACKET socket.
 * `vfkit`: datagrams of a unix socket, also QEMU's `-netdev dgram`.
 */
export type LinkProtocol = 'qemu' | 'hyperkit' | 'connect' | 'vpnkit' | 'bess' | 'vfkit';

/** Protocols of a byte stream. */
export type StreamProtocol = Exclude<LinkProtocol, 'bess' | 'vfkit'>;

/** Where to listen; a descriptor is a bound socket that came with the process, and stays its own. */
export type LinkEndpoint = { path: string } | { address: string; port: number } | { descriptor: number };

/** A place where machines plug in. */
export interface LinkListener extends Closable {
  /** The port of a TCP endpoint, else 0. */
  readonly port: number;
}

/** What listeners work with. */
export interface LinkListenersParts {
  poller: Poller;
  fabric: Switch;
  log: Log;
  mtuBytes: number;
  registry: VmnetRegistry;
  /** Puts before a link what stands between it and the switch. */
  wire: (link: Link) => Link;
}

/** The machines of one network and the sockets where they come in. */
export class LinkListeners {
  readonly #parts: LinkListenersParts;
  readonly #listeners = new Set<LinkListener>();
  readonly #machines = new Set<SwitchPort>();

  constructor(parts: LinkListenersParts) {
    this.#parts = parts;
  }

  /** Machines that are plugged in. */
  get size(): number {
    return this.#machines.size;
  }

  /** @throws DrydockError ERR_LINK_SOCKET_IN_USE, ERR_ADDRESS_INVALID; SyscallError */
  listen(protocol: LinkProtocol, endpoint: LinkEndpoint): LinkListener {
    if (protocol === 'vfkit' || protocol === 'bess') {
      if (!('path' in endpoint))
        throw new DrydockError(
          'ERR_ADDRESS_INVALID',
          `${protocol} is spoken over unix sockets only. Give a path.`,
        );
      return protocol === 'vfkit'
        ? this.#listenDatagram(endpoint.path)
        : this.#listenStream(protocol, endpoint);
    }
    return this.#listenStream(protocol, endpoint);
  }

  /** Plugs a machine in over a stream that is connected already. `ended` is called when it goes. */
  adopt(protocol: StreamProtocol, readFd: number, writeFd: number, ended: () => void): Closable {
    return this.#plugStream(protocol, readFd, writeFd, ended);
  }

  #listenStream(protocol: StreamProtocol | 'bess', endpoint: LinkEndpoint): LinkListener {
    const { poller, log } = this.#parts;
    const fd = openListener(protocol === 'bess' ? 'seqpacket' : 'stream', endpoint);
    const accept = (): void => {
      const accepted = socket.acceptUnix(fd);
      if (accepted < 0) {
        if (hostError(errnoName(socket.socketErrno())) === 'EMFILE') {
          poller.rest(fd, ACCEPT_REST_MS);
          log.warn({ protocol }, 'no file descriptors left to plug a machine in: raise `ulimit -n`');
        }
        return;
      }
      if ('address' in endpoint) socketOptions.setNoDelay(accepted);
      if (protocol === 'bess') this.#plugPackets(accepted, true, () => {});
      else this.#plugStream(protocol, accepted, accepted, () => {});
    };
    poller.watch(fd, EPOLLIN, accept);
    return this.#keep({
      port: 'address' in endpoint ? socket.localPort(fd) : 0,
      close() {
        poller.unwatch(fd);
        socket.close(fd);
        if ('path' in endpoint) removeSocket(endpoint.path);
      },
    });
  }

  /** One machine at a time: the first that sends a datagram is the peer, until it has gone. */
  #listenDatagram(path: string): LinkListener {
    const { poller, log } = this.#parts;
    let fd = -1;
    let port: Closable | undefined;
    const buf = new Uint8Array(DATAGRAM_BYTES_MAX);
    const wait = (): void => {
      port = undefined;
      fd = openListener('datagram', { path });
      poller.watch(fd, EPOLLIN, () => {
        const length = socket.receiveUnix(fd, buf, 0, buf.length);
        if (length < 0) return;
        const peer = socket.unixSender();
        if (peer === '') {
          log.warn({ path }, 'a machine sent from a socket without a path, so it cannot be answered');
          return;
        }
        try {
          socket.connectUnix(fd, peer);
        } catch (error) {
          log.warn({ path, peer, err: error }, 'a machine cannot be answered');
          return;
        }
        poller.unwatch(fd);
        const taken = fd;
        fd = -1;
        const hello = Buffer.from(buf.buffer, 0, length);
        const first = hello.toString('latin1') === VFKIT_HELLO ? undefined : hello;
        port = this.#plugPackets(taken, false, wait, first);
      });
    };
    wait();
    return this.#keep({
      port: 0,
      close() {
        if (fd >= 0) {
          poller.unwatch(fd);
          socket.close(fd);
          fd = -1;
        }
        port?.close();
        removeSocket(path);
      },
    });
  }

  #plugStream(protocol: StreamProtocol, readFd: number, writeFd: number, gone: () => void): Closable {
    const framing: Framing = protocol === 'qemu' ? QEMU_FRAMING : LE16_FRAMING;
    const preamble = this.#preamble(protocol);
    return this.#plug(
      protocol,
      (ended) =>
        new StreamLink({
          poller: this.#parts.poller,
          framing,
          readFd,
          writeFd,
          mtuBytes: this.#parts.mtuBytes,
          ended,
          ...(preamble && { preamble }),
        }),
      gone,
    );
  }

  #preamble(protocol: StreamProtocol): Preamble | undefined {
    if (protocol === 'connect') return httpConnectPreamble();
    return protocol === 'vpnkit' ? vmnetPreamble(this.#parts.registry, this.#parts.mtuBytes) : undefined;
  }

  #plugPackets(fd: number, connectionOriented: boolean, gone: () => void, first?: Uint8Array): Closable {
    const { poller, mtuBytes } = this.#parts;
    let link: PacketLink | undefined;
    const port = this.#plug(
      connectionOriented ? 'bess' : 'vfkit',
      (ended) => {
        link = new PacketLink({ poller, fd, mtuBytes, connectionOriented, ended });
        return link;
      },
      gone,
    );
    if (first) link?.inject(first);
    return port;
  }

  #plug(protocol: LinkProtocol, make: (ended: (end: StreamEnd) => void) => Link, gone: () => void): Closable {
    const { fabric, log } = this.#parts;
    let port: SwitchPort | undefined;
    const link = make((end) => {
      log.info({ protocol, ...end }, 'a machine has left');
      if (port) this.#machines.delete(port);
      port?.close();
      gone();
    });
    port = fabric.addPort(this.#parts.wire(link), undefined);
    if (this.#machines.size >= MACHINES_MAX) {
      log.warn({ protocol, limit: MACHINES_MAX }, 'too many machines: one was turned away');
      port.close();
    } else {
      this.#machines.add(port);
      log.info({ protocol }, 'a machine has come');
    }
    const plugged = port;
    return {
      close: () => {
        this.#machines.delete(plugged);
        plugged.close();
      },
    };
  }

  #keep(listener: LinkListener): LinkListener {
    const kept: LinkListener = {
      port: listener.port,
      close: () => {
        if (this.#listeners.delete(kept)) listener.close();
      },
    };
    this.#listeners.add(kept);
    return kept;
  }

  close(): void {
    for (const listener of this.#listeners) listener.close();
  }
}

function openListener(type: 'stream' | 'seqpacket' | 'datagram', endpoint: LinkEndpoint): number {
  if ('path' in endpoint) return listenUnix(type, endpoint.path);
  if ('descriptor' in endpoint) return listenInherited(endpoint.descriptor);
  const addr = parseAddress(endpoint.address);
  if (!addr)
    throw new DrydockError('ERR_ADDRESS_INVALID', `"${endpoint.address}" is no IP address to listen at.`);
  const fd = socket.openSocket(socket.isMapped(addr, 0) ? 4 : 6, 'stream');
  try {
    socketOptions.setReuseAddress(fd);
    socket.bind(fd, addr, 0, endpoint.port);
    socket.listen(fd, BACKLOG);
    return fd;
  } catch (error) {
    socket.close(fd);
    if (errorCode(error) !== 'EADDRINUSE') throw error;
    throw new DrydockError(
      'ERR_LINK_SOCKET_IN_USE',
      `Another program listens at ${endpoint.address}:${endpoint.port} already. Choose another port.`,
      { cause: error },
    );
  }
}

function listenInherited(descriptor: number): number {
  let fd = -1;
  try {
    fd = socket.duplicate(descriptor);
    socket.listen(fd, BACKLOG);
    return fd;
  } catch (error) {
    if (fd >= 0) socket.close(fd);
    throw new DrydockError(
      'ERR_LINK_URL_INVALID',
      `Descriptor ${descriptor} is no socket to listen on: ${errorCode(error)}.`,
      { cause: error },
    );
  }
}

function listenUnix(type: 'stream' | 'seqpacket' | 'datagram', path: string): number {
  refuseLiveSocket(type, path);
  removeSocket(path);
  const fd = socket.openUnixSocket(type);
  try {
    socket.bindUnix(fd, path);
    if (type !== 'datagram') socket.listen(fd, BACKLOG);
    return fd;
  } catch (error) {
    socket.close(fd);
    throw error;
  }
}

/** A socket file that nobody listens at was left behind by a crash; one that answers is another program's. */
function refuseLiveSocket(type: 'stream' | 'seqpacket' | 'datagram', path: string): void {
  const fd = socket.openUnixSocket(type);
  try {
    socket.connectUnix(fd, path);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ECONNREFUSED' || code === 'ENOENT') return;
    // A live socket of another type says EPROTOTYPE.
    if (code !== 'EPROTOTYPE') throw error;
  } finally {
    socket.close(fd);
  }
  throw new DrydockError(
    'ERR_LINK_SOCKET_IN_USE',
    `Another program listens at ${path} already. End it, or choose another path.`,
  );
}

/** Removes a socket file, and nothing else that may be there. */
function removeSocket(path: string): void {
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}
