/** One TCP flow: a guest's connection on the near side, a far end on the other. */
import type { TcpTemplate } from '../ip/output.ts';
import type { ByteTaker, SegmentSink, TcpConnection } from '../tcp/connection.ts';
import { formatEndpoint } from '../wire/address.ts';
import type { TcpSegment } from '../wire/tcp.ts';
import type { Aged } from './age-list.ts';
import type { FarEnd, FlowHandle } from './far-end.ts';
import type { Guest } from './guests.ts';
import type { HostError, HostIcmpError } from './host.ts';
import type { FlowInfo } from './inside.ts';
import { type Entry, keyAddress } from './table.ts';
import type { Timed } from './timers.ts';

/** What a flow asks of the table it is in. */
export interface FlowOwner {
  readonly now: number;
  touched(flow: TcpFlow): void;
  refused(flow: TcpFlow, error: HostError, icmp: HostIcmpError | undefined): void;
  send(template: TcpTemplate, seg: TcpSegment): boolean;
  template(flow: TcpFlow): TcpTemplate;
}

export class TcpFlow implements Entry, Timed, Aged, FlowHandle, SegmentSink, ByteTaker {
  readonly id: number;
  /** The guest. */
  readonly near: Uint8Array;
  readonly nearPort: number;
  /** The other side, as the guest knows it. */
  readonly far: Uint8Array;
  readonly farPort: number;
  readonly initiator: 'guest' | 'host';
  readonly conn: TcpConnection;
  readonly guest: Guest;
  readonly openedAt: number;
  end: FarEnd | undefined;
  /** The guest's station. */
  mac = -1;
  template: TcpTemplate | undefined;
  /** The handshake is not complete: the flow is in its guest's list of pending ones. */
  pending = true;
  /** It has a turn in this batch. */
  isTouched = false;
  /** It is not in the table any more. */
  isGone = false;
  /** Sequence number of the guest's SYN, for ICMP errors about it. */
  synSequence = 0;
  /** Differentiated services of the guest's last packet (RFC 2474). */
  services = 0;
  lastAt: number;
  bytesFromGuest = 0;
  bytesToGuest = 0;
  readonly #owner: FlowOwner;

  nextInBucket: Entry | undefined;
  dueAt: number = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  heapAt = 0;
  older: Aged | undefined;
  newer: Aged | undefined;

  constructor(
    owner: FlowOwner,
    id: number,
    guest: Guest,
    conn: TcpConnection,
    far: Uint8Array,
    farOff: number,
    initiator: 'guest' | 'host',
  ) {
    this.#owner = owner;
    this.id = id;
    this.guest = guest;
    this.near = guest.near;
    this.nearPort = conn.remotePort;
    this.far = keyAddress(far, farOff);
    this.farPort = conn.localPort;
    this.conn = conn;
    this.initiator = initiator;
    this.openedAt = owner.now;
    this.lastAt = owner.now;
  }

  touch(): void {
    if (this.isTouched || this.isGone) return;
    this.isTouched = true;
    this.#owner.touched(this);
  }

  farConnected(): void {
    this.conn.accept(this.#owner.now);
  }

  farRefused(error: HostError, icmp: HostIcmpError | undefined): void {
    this.#owner.refused(this, error, icmp);
  }

  countFromGuest(bytes: number): void {
    this.bytesFromGuest += bytes;
  }

  countToGuest(bytes: number): void {
    this.bytesToGuest += bytes;
  }

  segment(seg: TcpSegment): boolean {
    this.template ??= this.#owner.template(this);
    return this.#owner.send(this.template, seg);
  }

  take(buf: Uint8Array, off: number, len: number): number {
    return this.end ? this.end.take(buf, off, len) : 0;
  }

  describe(now: number): FlowInfo {
    return {
      id: this.id,
      protocol: 'tcp',
      initiator: this.initiator,
      guest: formatEndpoint(this.near, 0, this.nearPort),
      target: formatEndpoint(this.far, 0, this.farPort),
      state: this.conn.state,
      ageMs: now - this.openedAt,
      idleMs: now - this.lastAt,
      bytesFromGuest: this.bytesFromGuest,
      bytesToGuest: this.bytesToGuest,
      rttMs: this.conn.srttMs,
      retransmits: this.conn.retransmits,
    };
  }
}
