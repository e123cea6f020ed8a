// A DHCP server on an ordinary UDP socket, and a relay that asks it for a client. Needs root for the relay's port 67.
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { formatIpv4, LeasePool, parseIpv4, serveDhcp } from 'drydock/netstack/services';

const nullLog = { debug() {}, info() {}, warn() {}, error() {}, child: () => nullLog };

test('a client gets the first address of the pool', async () => {
  const pool = new LeasePool({
    network: parseIpv4('127.0.0.0'),
    prefixLength: 24,
    first: parseIpv4('127.0.0.50'),
  });
  const server = await serveDhcp({
    address: '127.0.0.1',
    port: 0,
    pool,
    serverAddress: parseIpv4('127.0.0.1'),
    prefixLength: 24,
    log: nullLog,
  });
  const relay = createSocket('udp4').bind(67, '127.0.0.9');
  await once(relay, 'listening');

  // RFC 2131 section 2: op, htype, hlen, hops, xid; giaddr at 24 is the relay, chaddr at 28 the client.
  const discover = Buffer.alloc(300);
  discover.set([1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe]);
  discover.set([127, 0, 0, 9], 24);
  discover.set([0x02, 0, 0, 0, 0, 1], 28);
  // The cookie, option 53 (message type) 1: DISCOVER, and the end.
  discover.set([99, 130, 83, 99, 53, 1, 1, 255], 236);
  relay.send(discover, server.port, '127.0.0.1');

  const [offer] = await once(relay, 'message');
  assert.equal(offer.readUInt32BE(4), 0xcafebabe);
  assert.equal(formatIpv4(offer.readUInt32BE(16)), '127.0.0.50');
  assert.equal(pool.leases(0)[0].state, 'offered');
  relay.close();
  await server.close();
});
