/** Explicit congestion notification (RFC 3168). The field of an IP packet: 1 or 2 can be marked, 3 is marked. */
import type { Cases, Topics } from './script.ts';

const OPEN = `
  < SEW 0:0(0) win 65535 <mss 1460>
  accept
  > S.E 0:0(0) ack 1 ecn 0
  < . 1:1(0) ack 1 win 65535
`;

const handshake: Cases = {
  '6.1.1: a SYN that asks for it is agreed to, on a packet that cannot be marked': OPEN,
  '6.1.1: one that does not ask is not': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1 ecn 0
    < . 1:1(0) ack 1 win 65535
    write 100
    > P. 1:101(100) ack 1 ecn 0
  `,
  '6.1.1: one bit alone asks for nothing': `
    < SE 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
  `,
  '6.1.1: where it is off it is not agreed to': [
    `
    < SEW 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    `,
    { config: { ecn: 'off' } },
  ],
  '6.1.1: our own SYN asks where the configuration says so, and once': [
    `
    connect
    > SEW 0:0(0)
    +1000 > S 0:0(0)
    < S.E 0:0(0) ack 1 win 65535 <mss 1460>
    > . 1:1(0) ack 1 ecn 0
    write 100
    > P. 1:101(100) ack 1 ecn 2
    `,
    { config: { ecn: 'request' } },
  ],
  '6.1.1: an answer without agreement is none': [
    `
    connect
    > SEW 0:0(0)
    < S. 0:0(0) ack 1 win 65535 <mss 1460>
    > . 1:1(0) ack 1
    write 100
    > P. 1:101(100) ack 1 ecn 0
    `,
    { config: { ecn: 'request' } },
  ],
  '6.1.1: by default our SYN does not ask': `
    connect
    > S 0:0(0)
  `,
};

const sender: Cases = {
  '6.1.2: new data can be marked; its echo halves nothing twice in a window, and is confirmed once': `${OPEN}
    write 4380
    > . 1:1461(1460) ack 1 ecn 2
    > . 1461:2921(1460) ack 1 ecn 2
    > P. 2921:4381(1460) ack 1 ecn 2
    <& .E 1:1(0) ack 1461 win 65535
    < .E 1:1(0) ack 4381 win 65535
    count congestionMarksOut 1
    write 1460
    > P.W 4381:5841(1460) ack 1 ecn 2
    write 1460
    > P. 5841:7301(1460) ack 1 ecn 2
    count retransmits 0
  `,
  '6.1.2: the next window may be reduced again': `${OPEN}
    write 1460
    > P. 1:1461(1460) ack 1 ecn 2
    < .E 1:1(0) ack 1461 win 65535
    write 1460
    > P.W 1461:2921(1460) ack 1 ecn 2
    < .E 1:1(0) ack 2921 win 65535
    count congestionMarksOut 2
  `,
  '6.1.5: what is sent again cannot be marked': `${OPEN}
    write 100
    > P. 1:101(100) ack 1 ecn 2
    +200 > P. 1:101(100) ack 1 ecn 0
  `,
  '6.1.6: a probe of a closed window cannot be marked': `
    < SEW 0:0(0) win 0 <mss 1460>
    accept
    > S.E 0:0(0) ack 1
    < . 1:1(0) ack 1 win 0
    write 100
    +200 > . 1:2(1) ack 1 ecn 0
  `,
  '6.1.2: an echo from a peer that did not agree means nothing': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    write 1460
    > P. 1:1461(1460) ack 1 ecn 0
    < .E 1:1(0) ack 1461 win 65535
    count congestionMarksOut 0
  `,
};

const receiver: Cases = {
  '6.1.3: a mark is echoed at once and on every ACK, until the peer has slowed down': `${OPEN}
    < P. 1:101(100) ack 1 win 65535 ecn 3
    > .E 1:1(0) ack 101 ecn 0
    < P. 101:201(100) ack 1 win 65535 ecn 2
    +40 > .E 1:1(0) ack 201
    < P.W 201:301(100) ack 1 win 65535 ecn 2
    +40 > . 1:1(0) ack 301
    count congestionMarksIn 1
  `,
  '6.1.3: a mark on what says that the peer has slowed down is a new one': `${OPEN}
    < P. 1:101(100) ack 1 win 65535 ecn 3
    > .E 1:1(0) ack 101
    < P.W 101:201(100) ack 1 win 65535 ecn 3
    > .E 1:1(0) ack 201
    count congestionMarksIn 2
  `,
  '6.1.3: the echo goes with data too': `${OPEN}
    < P. 1:101(100) ack 1 win 65535 ecn 3
    > .E 1:1(0) ack 101
    write 100
    > P.E 1:101(100) ack 101 ecn 2
  `,
};

export const ecnTopics: Topics = {
  'RFC 3168: the handshake': handshake,
  'RFC 3168: the sender': sender,
  'RFC 3168: the receiver': receiver,
};
