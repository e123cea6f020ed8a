/** What stands between the flows and a host and changes part of what goes through. */
import type {
  Closable,
  DatagramSink,
  Host,
  HostDatagram,
  HostError,
  HostGroup,
  HostPing,
  HostStream,
  ListenSink,
  PingSink,
  StreamSink,
} from './host.ts';

/** A host that leaves all but what a subclass takes up to the one behind it. */
export abstract class HostLayer implements Host {
  protected readonly inner: Host;

  constructor(inner: Host) {
    this.inner = inner;
  }

  abstract connect(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    ttl: number,
    trafficClass: number,
    sink: StreamSink,
    guest?: Uint8Array,
  ): HostStream | HostError;

  listen(
    addr: Uint8Array,
    addrOff: number,
    port: number,
    sink: ListenSink,
  ): (Closable & { readonly port: number }) | HostError {
    return this.inner.listen(addr, addrOff, port, sink);
  }

  openDatagram(
    family: 4 | 6,
    addr: Uint8Array | undefined,
    addrOff: number,
    port: number,
    sink: DatagramSink,
  ): HostDatagram | HostError {
    return this.inner.openDatagram(family, addr, addrOff, port, sink);
  }

  openPing(family: 4 | 6, sink: PingSink): HostPing | HostError {
    return this.inner.openPing(family, sink);
  }

  openGroup(addr: Uint8Array, addrOff: number, port: number, sink: DatagramSink): HostGroup | HostError {
    return this.inner.openGroup(addr, addrOff, port, sink);
  }
}
