/** Opening connections (RFC 9293 sections 3.5, 3.10), and the options that SYNs agree on. */
import type { Cases, Topics } from './script.ts';

const passive: Cases = {
  '9293 3.10.7.2: a SYN is answered after accept, with the MSS of our link': `
    < S 0:0(0) win 65535 <mss 1460>
    state pending
    +3000 accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460>
    state syn-received
    < . 1:1(0) ack 1 win 65535
    state established
    open
  `,
  'a SYN that is not yet decided on is silent, also when it comes again': `
    < S 0:0(0) win 65535 <mss 1460>
    +1000 < S 0:0(0) win 65535 <mss 1460>
    +60000 silence
    state pending
  `,
  'another SYN from the same port while undecided starts anew': `
    < S 0:0(0) win 65535 <mss 1460>
    +500 < S 7000:7000(0) win 65535 <mss 1400,sackOK>
    accept
    > S. 0:0(0) ack 7001 win 65535 <mss 1460,sackOK>
  `,
  'an ACK while undecided is not answered': `
    < S 0:0(0) win 65535 <mss 1460>
    < . 1:1(0) ack 1 win 65535
    state pending
  `,
  '9293 3.10.7.4: a RST while undecided means that the guest gave up': `
    < S 0:0(0) win 65535 <mss 1460>
    < R 1:1(0)
    state closed
    failure reset
    dead
  `,
  'a RST elsewhere while undecided is ignored': `
    < S 0:0(0) win 65535 <mss 1460>
    < R 5000:5000(0)
    state pending
  `,
  'refuse answers with the RST of a closed port (9293 3.10.7.1)': `
    < S 0:0(0) win 65535 <mss 1460>
    refuse
    > R. 0:0(0) ack 1 win 0
    state closed
    dead
  `,
  'discard says nothing': [
    `
    < S 0:0(0) win 65535 <mss 1460>
    discard
    dead
    +60000 silence
  `,
    { aloneBecause: 'the stack discards for reasons of its own' },
  ],
  'accept after the guest has given up does nothing': `
    < S 0:0(0) win 65535 <mss 1460>
    < R 1:1(0)
    accept
    state closed
  `,
  '6298 5.7: the SYN-ACK is sent again with back-off': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    +1000 > S. 0:0(0) ack 1
    +2000 > S. 0:0(0) ack 1
    +4000 > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    state established
  `,
  'a SYN that comes again is answered at once by the SYN-ACK': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    +300 < S 0:0(0) win 65535 <mss 1460>
    > S. 0:0(0) ack 1
    +10 < . 1:1(0) ack 1 win 65535
    state established
  `,
  'a handshake without an answer fails in the end': [
    `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    +1000 > S. 0:0(0) ack 1
    +2000 > S. 0:0(0) ack 1
    +4000 > R. 1:1(0) ack 1
    failure timed-out
    dead
  `,
    { config: { handshakeMsMax: 5000 } },
  ],
  '9293 3.10.7.4 fifth: in SYN-RECEIVED a wrong ACK gets a RST and changes nothing': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 900 win 65535
    > R 900:900(0)
    state syn-received
    < . 1:1(0) ack 1 win 65535
    state established
  `,
  '9293 3.10.7.4 second: a RST in SYN-RECEIVED ends it': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < R 1:1(0)
    failure reset
    dead
  `,
  'the ACK of the handshake may carry data': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < . 1:101(100) ack 1 win 65535
    state established
    read 100
    +40 > . 1:1(0) ack 101
  `,
  'the ACK of the handshake may carry data and FIN': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < F. 1:101(100) ack 1 win 65535
    > . 1:1(0) ack 102
    state close-wait
    eof no
    read 100
    eof
  `,
  'data before the ACK of our SYN is not taken': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < . 1:101(100) ack 0 win 65535
    > R 0:0(0)
    state syn-received
    unread 0
  `,
  'finish before the handshake is done sends FIN right after it': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    finish
    < . 1:1(0) ack 1 win 65535
    > F. 1:1(0) ack 1
    state fin-wait-1
  `,
  'abort in SYN-RECEIVED sends RST': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    abort
    > R. 1:1(0) ack 1
    dead
  `,
  'a link that takes nothing is asked again': [
    `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    +50 > S. 0:0(0) ack 1
    +1000 > S. 0:0(0) ack 1
  `,
    { linkBlockedUntilMs: 49.5 },
  ],
};

const active: Cases = {
  '9293 3.10.1: connect sends a SYN with our options, and the SYN-ACK is acknowledged at once': `
    connect
    > S 0:0(0) win 65535 <mss 1460,sackOK,TS val 0 ecr 0,wscale 7>
    state syn-sent
    +5 < S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 900 ecr 0,wscale 7>
    > . 1:1(0) ack 1 win 2048 <TS val 5 ecr 900>
    state established
  `,
  'a SYN is sent again with back-off, then connect fails without a RST': [
    `
    connect
    > S 0:0(0)
    +1000 > S 0:0(0)
    +2000 > S 0:0(0)
    +4000 state closed
    failure timed-out
    dead
  `,
    { config: { handshakeMsMax: 5000 } },
  ],
  '9293 3.10.7.3: RST with our number is a refusal': `
    connect
    > S 0:0(0)
    < R. 0:0(0) ack 1 win 0
    failure refused
    dead
  `,
  '9293 3.10.7.3: RST without ACK is ignored': `
    connect
    > S 0:0(0)
    < R 0:0(0)
    state syn-sent
  `,
  '9293 3.10.7.3: RST with another number is ignored': `
    connect
    > S 0:0(0)
    < R. 0:0(0) ack 77 win 0
    state syn-sent
  `,
  '9293 3.10.7.3: an ACK of something not sent gets a RST': `
    connect
    > S 0:0(0)
    < . 500:500(0) ack 900 win 100
    > R 900:900(0)
    state syn-sent
  `,
  '9293 3.5.1: an old SYN-ACK gets a RST, the right one still counts': `
    connect
    > S 0:0(0)
    < S. 300:300(0) ack 90 win 100 <mss 1460>
    > R 90:90(0)
    < S. 0:0(0) ack 1 win 65535 <mss 1460>
    > . 1:1(0) ack 1
    state established
  `,
  'an ACK without SYN is ignored': `
    connect
    > S 0:0(0)
    < . 1:1(0) ack 1 win 100
    state syn-sent
  `,
  '9293 3.5 figure 8: simultaneous open': `
    connect
    > S 0:0(0)
    < S 0:0(0) win 65535 <mss 1460>
    > S. 0:0(0) ack 1
    state syn-received
    < . 1:1(0) ack 1 win 65535
    state established
  `,
  '9293 3.5 figure 8: simultaneous open completed by the other SYN-ACK': `
    connect
    > S 0:0(0)
    < S 0:0(0) win 65535 <mss 1460>
    > S. 0:0(0) ack 1
    < S. 0:0(0) ack 1 win 65535 <mss 1460>
    state established
    write 10
    > . 1:11(10) ack 1
  `,
  'data on a SYN-ACK is taken': `
    connect
    > S 0:0(0)
    < S. 0:20(20) ack 1 win 65535 <mss 1460>
    > . 1:1(0) ack 21
    unread 20
  `,
  'abort in SYN-SENT is silent (9293 3.10.5)': `
    connect
    > S 0:0(0)
    abort
    dead
    +10000 silence
  `,
};

const options: Cases = {
  '9293 MUST-15: without an MSS option segments have 536 bytes': `
    < S 0:0(0) win 65535
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460>
    < . 1:1(0) ack 1 win 65535
    write 1000
    > . 1:537(536) ack 1
    > . 537:1001(464) ack 1
  `,
  "9293 3.7.1: segments have the peer's MSS if that is smaller than ours": `
    < S 0:0(0) win 65535 <mss 1000>
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460>
    < . 1:1(0) ack 1 win 65535
    write 1500
    > . 1:1001(1000) ack 1
    > . 1001:1501(500) ack 1
  `,
  'a larger MSS than our link carries is cut to ours': `
    < S 0:0(0) win 65535 <mss 9000>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    write 2000
    > . 1:1461(1460) ack 1
    > . 1461:2001(540) ack 1
  `,
  'an absurdly small MSS is not followed below 216': `
    < S 0:0(0) win 65535 <mss 1>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    write 432
    > . 1:217(216) ack 1
    > . 217:433(216) ack 1
  `,
  '6691: the timestamps option makes segments shorter, not the MSS option': `
    < S 0:0(0) win 65535 <mss 1460,TS val 7 ecr 0>
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460,TS val 0 ecr 7>
    < . 1:1(0) ack 1 win 65535 <TS val 8 ecr 0>
    write 1500
    > . 1:1449(1448) ack 1 <TS val 0 ecr 8>
    > . 1449:1501(52) ack 1 <TS val 0 ecr 8>
  `,
  '7323 2.2: no window scale unless the SYN had one, and a window of 65535 then': [
    `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460>
    < . 1:1001(1000) ack 1 win 65535
    +40 > . 1:1(0) ack 1001 win 64535
  `,
    { config: { receiveBytesInitial: 1 << 20 } },
  ],
  '7323 2.2: the window of the SYN-ACK is not scaled, later ones are': [
    `
    < S 0:0(0) win 65535 <mss 1460,wscale 3>
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460,wscale 7>
    < . 1:129(128) ack 1 win 65535
    +40 > . 1:1(0) ack 129 win 8191
  `,
    { config: { receiveBytesInitial: 1 << 20 } },
  ],
  "7323 2.3: the peer's windows are scaled by its shift": `
    < S 0:0(0) win 65535 <mss 1460,wscale 4>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 100   // 1600 bytes
    write 3000
    > . 1:801(800) ack 1
    > P. 801:1601(800) ack 1
  `,
  '7323 2.3: the window of the SYN itself is not scaled': `
    connect
    > S 0:0(0)
    < S. 0:0(0) ack 1 win 1000 <mss 1460,wscale 10>
    > . 1:1(0) ack 1
    write 1200
    > . 1:501(500) ack 1
    > P. 501:1001(500) ack 1
  `,
  '2018 2: no SACK-permitted unless the SYN had it': `
    < S 0:0(0) win 65535 <mss 1460,wscale 7>
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460,wscale 7>
  `,
  'what the configuration forbids is not offered': [
    `
    < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,wscale 7>
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 1460>
  `,
    { config: { sack: false, timestamps: false, windowScaling: false } },
  ],
  'what the configuration forbids is not asked for either': [
    `
    connect
    > S 0:0(0) win 65535 <mss 1460>
  `,
    { config: { sack: false, timestamps: false, windowScaling: false } },
  ],
  'a jumbo path has a jumbo MSS': [
    `
    < S 0:0(0) win 65535 <mss 65480>
    accept
    > S. 0:0(0) ack 1 win 65535 <mss 65480>
  `,
    { path: { segmentBytesMax: 65500, superSegmentBytesMax: 65515 } },
  ],
};

export const handshakeTopics: Topics = {
  'passive open': passive,
  'active open': active,
  'options of the SYN': options,
};
