/** Losses: time-outs (RFC 6298), fast recovery (RFC 5681, 6582), SACK (RFC 2018, 2883), RACK-TLP (RFC 8985), Eifel (RFC 4015), path MTU. */
import { ACCEPTED, ACCEPTED_FAR, ACCEPTED_SACK, ACCEPTED_STAMPS, type Cases, type Topics } from './script.ts';

const tap = { segmentBytesMax: 1480, superSegmentBytesMax: 65515 };

/** Ten segments on the wire: 1 to 14601. */
const TEN = `
  write 14600
  > . 1:1461(1460) ack 1
  > . 1461:2921(1460) ack 1
  > . 2921:4381(1460) ack 1
  > . 4381:5841(1460) ack 1
  > . 5841:7301(1460) ack 1
  > . 7301:8761(1460) ack 1
  > . 8761:10221(1460) ack 1
  > . 10221:11681(1460) ack 1
  > . 11681:13141(1460) ack 1
  > P. 13141:14601(1460) ack 1
`;

const timeouts: Cases = {
  '6298 5: a segment without an ACK is sent again, with doubled time-outs': `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    +200 > P. 1:101(100) ack 1
    +400 > P. 1:101(100) ack 1
    +800 > P. 1:101(100) ack 1
    < . 1:1(0) ack 101 win 65535
    count timeouts 3
    +60000 silence
  `,
  '6298 2.1: the first time-out is one second when nothing was measured': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    +1000 > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    write 100
    > P. 1:101(100) ack 1
    +3000 > P. 1:101(100) ack 1   // 6298 5.7
  `,
  '6298 2.2: the time-out follows the measured round trip': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    +300 < . 1:1(0) ack 1 win 65535
    write 100
    > P. 1:101(100) ack 1
    +900 > P. 1:101(100) ack 1    // 300 + 4 * 150
  `,
  '6298 2.3: and steadies with a steady round trip': `
    < S 0:0(0) win 65535 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    +300 < . 1:1(0) ack 1 win 65535
    write 100
    > P. 1:101(100) ack 1
    +300 < . 1:1(0) ack 101 win 65535
    write 100
    > P. 101:201(100) ack 1
    +300 < . 1:1(0) ack 201 win 65535
    write 100
    > P. 201:301(100) ack 1
    +637.5 > P. 201:301(100) ack 1  // 300 + 4 * 84.4
  `,
  "6298 3: Karn's algorithm: what was sent twice is not measured": `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    +200 > P. 1:101(100) ack 1
    +350 < . 1:1(0) ack 101 win 65535
    write 100
    > P. 101:201(100) ack 1
    +400 > P. 101:201(100) ack 1  // backed off still: nothing has been measured
    < . 1:1(0) ack 201 win 65535
  `,
  'a measurement ends the back-off': `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    +200 > P. 1:101(100) ack 1
    < . 1:1(0) ack 101 win 65535
    write 100
    > P. 101:201(100) ack 1
    +1 < . 1:1(0) ack 201 win 65535
    write 100
    > P. 201:301(100) ack 1
    +200.2 > P. 201:301(100) ack 1
  `,
  'the time-out has an upper bound': [
    `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    +200 > P. 1:101(100) ack 1
    +400 > P. 1:101(100) ack 1
    +500 > P. 1:101(100) ack 1
    +500 > P. 1:101(100) ack 1
  `,
    { config: { rtoMsMax: 500 } },
  ],
  '6298 5.3: an ACK of new data starts the timer anew': `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    +150 write 100
    > P. 101:201(100) ack 1
    +10 < . 1:1(0) ack 101 win 65535
    +220 > P. 101:201(100) ack 1   // srtt is 20
  `,
  '5681 3.1: after a time-out one segment is sent, then slow start': `${ACCEPTED}${TEN}
    +200 > . 1:1461(1460) ack 1
    +10 < . 1:1(0) ack 1461 win 65535
    > . 1461:2921(1460) ack 1
    > . 2921:4381(1460) ack 1
    +10 < . 1:1(0) ack 4381 win 65535
    > . 4381:5841(1460) ack 1
    > . 5841:7301(1460) ack 1
    > . 7301:8761(1460) ack 1
    > . 8761:10221(1460) ack 1
    count timeouts 1
    < . 1:1(0) ack 14601 win 65535
  `,
  'a segment is cut again for the link when it is sent again, super-segments too': [
    `${ACCEPTED}
    write 10000
    > P. 1:10001(10000) ack 1 win 65535 gso 1460
    +200 > . 1:1461(1460) ack 1
    +10 < . 1:1(0) ack 1461 win 65535
    > . 1461:4381(2920) ack 1 win 65535 gso 1460
    +10 < . 1:1(0) ack 10001 win 65535
  `,
    { path: tap },
  ],
};

const fast: Cases = {
  '5681 3.2: three duplicate ACKs bring the segment again': `${ACCEPTED}${TEN}
    +10 < . 1:1(0) ack 1461 win 65535
    < . 1:1(0) ack 1461 win 65535
    < . 1:1(0) ack 1461 win 65535
    < . 1:1(0) ack 1461 win 65535
    > . 1461:2921(1460) ack 1
    count fastRecoveries 1
    count timeouts 0
    +10 < . 1:1(0) ack 14601 win 65535
    +5000 silence
  `,
  '5681 3.2: an ACK with data is no duplicate': `${ACCEPTED}${TEN}
    < . 1:101(100) ack 1 win 65535
    < . 101:201(100) ack 1 win 65535
    < . 201:301(100) ack 1 win 65535
    < . 301:401(100) ack 1 win 65535
    count fastRecoveries 0
    +40 > . 14601:14601(0) ack 401
  `,
  '5681 3.2: an ACK with another window is no duplicate': `${ACCEPTED}${TEN}
    < . 1:1(0) ack 1 win 65000
    < . 1:1(0) ack 1 win 64000
    < . 1:1(0) ack 1 win 63000
    < . 1:1(0) ack 1 win 62000
    count fastRecoveries 0
  `,
  '3042: the first two duplicate ACKs each let a new segment out': `${ACCEPTED}
    write 20000
    > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    > . 2921:4381(1460) ack 1
    > . 4381:5841(1460) ack 1
    > . 5841:7301(1460) ack 1
    > . 7301:8761(1460) ack 1
    > . 8761:10221(1460) ack 1
    > . 10221:11681(1460) ack 1
    > . 11681:13141(1460) ack 1
    > . 13141:14601(1460) ack 1
    +10 < . 1:1(0) ack 1 win 65535
    > . 14601:16061(1460) ack 1
    < . 1:1(0) ack 1 win 65535
    > . 16061:17521(1460) ack 1
    < . 1:1(0) ack 1 win 65535
    > . 1:1461(1460) ack 1
  `,
  '6582 3.2: a partial ACK brings the next hole at once': `${ACCEPTED}${TEN}
    +10 < . 1:1(0) ack 1 win 65535
    < . 1:1(0) ack 1 win 65535
    < . 1:1(0) ack 1 win 65535
    > . 1:1461(1460) ack 1
    +10 < . 1:1(0) ack 4381 win 65535
    > . 4381:5841(1460) ack 1
    +10 < . 1:1(0) ack 14601 win 65535
    count fastRecoveries 1
    count timeouts 0
  `,
  'without SACK the receiver sends one duplicate ACK per segment out of order': `${ACCEPTED}
    <& . 1461:2921(1460) ack 1 win 65535
    <& . 2921:4381(1460) ack 1 win 65535
    < . 4381:5841(1460) ack 1 win 65535
    > . 1:1(0) ack 1
    > . 1:1(0) ack 1
    > . 1:1(0) ack 1
    < . 1:1461(1460) ack 1 win 65535
    > . 1:1(0) ack 5841
    unread 5840
  `,
};

const sackReceiver: Cases = {
  '2018 4: a hole is acknowledged at once, with what lies beyond it': `${ACCEPTED_SACK}
    < . 1461:2921(1460) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1461:2921>
    < . 2921:4381(1460) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1461:4381>
    < . 1:1461(1460) ack 1 win 500
    > . 1:1(0) ack 4381 win 2013 <>
    read 4380
  `,
  '2018 4: the block of the latest segment comes first, then the others by age': `${ACCEPTED_SACK}
    < . 1001:2001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1001:2001>
    < . 3001:4001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 3001:4001 1001:2001>
    < . 5001:6001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 5001:6001 3001:4001 1001:2001>
    < . 7001:8001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 7001:8001 5001:6001 3001:4001 1001:2001>
    < . 9001:10001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 9001:10001 7001:8001 5001:6001 3001:4001>
    < . 2001:3001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1001:4001 9001:10001 7001:8001 5001:6001>
  `,
  '2018 3: with timestamps three blocks fit': `${ACCEPTED_STAMPS}
    < . 1001:2001(1000) ack 1 win 500 <TS val 100 ecr 0>
    > . 1:1(0) ack 1 win 2048 <TS val 0 ecr 100,sack 1001:2001>
    < . 3001:4001(1000) ack 1 win 500 <TS val 100 ecr 0>
    > . 1:1(0) ack 1
    < . 5001:6001(1000) ack 1 win 500 <TS val 100 ecr 0>
    > . 1:1(0) ack 1
    < . 7001:8001(1000) ack 1 win 500 <TS val 100 ecr 0>
    > . 1:1(0) ack 1 win 2048 <TS val 0 ecr 100,sack 7001:8001 5001:6001 3001:4001>
  `,
  'segments out of order that overlap become one range': `${ACCEPTED_SACK}
    < . 1001:2001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1001:2001>
    < . 1501:3001(1500) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1001:3001>
    < . 501:3501(3000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 501:3501>
    < . 1:1001(1000) ack 1 win 500
    > . 1:1(0) ack 3501
    read 3500
    memory 0
  `,
  'a segment that fills one of two holes leaves the other': `${ACCEPTED_SACK}
    < . 1001:2001(1000) ack 1 win 500
    > . 1:1(0) ack 1
    < . 3001:4001(1000) ack 1 win 500
    > . 1:1(0) ack 1
    < . 1:1001(1000) ack 1 win 500
    > . 1:1(0) ack 2001 win 2032 <sack 3001:4001>
    unread 2000
  `,
  '2883 4.1: a segment that comes twice is reported': `${ACCEPTED_SACK}
    < . 1:1001(1000) ack 1 win 500
    read 1000
    +40 > . 1:1(0) ack 1001
    < . 1:1001(1000) ack 1 win 500
    > . 1:1(0) ack 1001 win 2048 <sack 1:1001>
    < . 1001:2001(1000) ack 1 win 500
    +40 > . 1:1(0) ack 2001 win 2040 <>
  `,
  '2883 4.1.2: a duplicate above the ACK is reported before its range': `${ACCEPTED_SACK}
    < . 1001:3001(2000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1001:3001>
    < . 1001:2001(1000) ack 1 win 500
    > . 1:1(0) ack 1 win 2048 <sack 1001:2001 1001:3001>
  `,
  'SACK blocks go on an ACK of their own, before data': `${ACCEPTED_SACK}
    <& . 1001:2001(1000) ack 1 win 500
    write 1460
    > . 1:1(0) ack 1 win 2048 <sack 1001:2001>
    > P. 1:1461(1460) ack 1 win 2048 <>
  `,
  'a zero-length or inverted SACK block of the peer is ignored': `${ACCEPTED_SACK}
    write 1000
    > P. 1:1001(1000) ack 1
    < . 1:1(0) ack 1 win 10000 <sack 500:500>
    < . 1:1(0) ack 1 win 10000 <sack 900:200>
    < . 1:1(0) ack 1 win 10000 <sack 5000:9000>
    < . 1:1(0) ack 1001 win 10000
    +1000 silence
  `,
};

const rack: Cases = {
  '8985 6.2, 6675 4: three segments SACKed beyond a hole bring it again at once': `${ACCEPTED_FAR}${TEN}
    +10 < . 1:1(0) ack 1 win 10000 <sack 1461:5841>
    > . 1:1461(1460) ack 1
    count fastRecoveries 1
    +10 < . 1:1(0) ack 14601 win 10000
    +5000 silence
    count timeouts 0
  `,
  '8985 6.2: every hole below what was SACKed is found by one ACK': `${ACCEPTED_FAR}${TEN}
    +10 < . 1:1(0) ack 1 win 10000 <sack 13141:14601,sack 1461:5841>
    > . 1:1461(1460) ack 1           // as much as was delivered (9937 6)
    > . 5841:7301(1460) ack 1
    > . 7301:8761(1460) ack 1
    > . 8761:10221(1460) ack 1
    +10 < . 1:1(0) ack 5841 win 10000 <sack 13141:14601>
    > . 10221:11681(1460) ack 1
    > . 11681:13141(1460) ack 1
    +10 < . 1:1(0) ack 14601 win 10000
    count fastRecoveries 1
    count timeouts 0
  `,
  '8985 6.2: fewer than three SACKed may be reordering: wait a quarter of a round trip': `${ACCEPTED_FAR}${TEN}
    +20 < . 1:1(0) ack 1 win 10000 <sack 1461:2921>
    +5 > . 1:1461(1460) ack 1
    count fastRecoveries 1
  `,
  '8985 6.2: what comes within that time is no loss': `${ACCEPTED_FAR}${TEN}
    +20 < . 1:1(0) ack 1 win 10000 <sack 1461:2921>
    +4 < . 1:1(0) ack 2921 win 10000
    +5 < . 1:1(0) ack 14601 win 10000
    count fastRecoveries 0
  `,
  '8985 6.2: a retransmission that is lost too is found without a time-out': `${ACCEPTED_FAR}${TEN}
    +10 < . 1:1(0) ack 1 win 10000 <sack 1461:5841>
    > . 1:1461(1460) ack 1
    +5 write 1460
    +5 < . 1:1(0) ack 1 win 10000 <sack 1461:14601>
    > P. 14601:16061(1460) ack 1
    +10 < . 1:1(0) ack 1 win 10000 <sack 1461:16061>
    > . 1:1461(1460) ack 1
    count timeouts 0
  `,
  '8985 7.2: a lost tail is probed after two round trips': `
    < S 0:0(0) win 65535 <mss 1460,sackOK>
    accept
    > S. 0:0(0) ack 1
    +20 < . 1:1(0) ack 1 win 65535
    write 4380
    > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    > P. 2921:4381(1460) ack 1
    +20 < . 1:1(0) ack 1461 win 65535
    +40 > P. 2921:4381(1460) ack 1   // the probe
    count tailLossProbes 1
    +20 < . 1:1(0) ack 1461 win 65535 <sack 2921:4381>
    > . 1461:2921(1460) ack 1
    +20 < . 1:1(0) ack 4381 win 65535
    count timeouts 0
  `,
  '8985 7.2: a lone segment is given the time of a delayed ACK': `
    < S 0:0(0) win 65535 <mss 1460,sackOK>
    accept
    > S. 0:0(0) ack 1
    +200 < . 1:1(0) ack 1 win 65535
    write 100
    > P. 1:101(100) ack 1
    +600 > P. 1:101(100) ack 1       // min(2 * 200 + 200, 200 + 4 * 100): probe and time-out
  `,
  '8985 7.3: the probe is new data if there is some': [
    `
    < S 0:0(0) win 3000 <mss 1460,sackOK>
    accept
    > S. 0:0(0) ack 1
    +20 < . 1:1(0) ack 1 win 65535
    write 17520
    > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    > . 2921:4381(1460) ack 1
    > . 4381:5841(1460) ack 1
    > . 5841:7301(1460) ack 1
    > . 7301:8761(1460) ack 1
    > . 8761:10221(1460) ack 1
    > . 10221:11681(1460) ack 1
    > . 11681:13141(1460) ack 1
    > . 13141:14601(1460) ack 1
    +40 > . 14601:16061(1460) ack 1
    count retransmits 0
  `,
    {},
  ],
  '8985 7: one probe per flight, then the time-out': `
    < S 0:0(0) win 65535 <mss 1460,sackOK>
    accept
    > S. 0:0(0) ack 1
    +20 < . 1:1(0) ack 1 win 65535
    write 2920
    > . 1:1461(1460) ack 1
    > P. 1461:2921(1460) ack 1
    +40 > P. 1461:2921(1460) ack 1
    +220 > . 1:1461(1460) ack 1
    count timeouts 1
  `,
  '8985 7.4: a probe that has repaired a loss reduces the window once': `
    < S 0:0(0) win 65535 <mss 1460,sackOK>
    accept
    > S. 0:0(0) ack 1
    +20 < . 1:1(0) ack 1 win 65535
    write 2920
    > . 1:1461(1460) ack 1
    > P. 1461:2921(1460) ack 1
    +40 > P. 1461:2921(1460) ack 1
    +20 < . 1:1(0) ack 2921 win 65535
    write 14600
    > . 2921:4381(1460) ack 1
    > . 4381:5841(1460) ack 1
    +20 < . 1:1(0) ack 5841 win 65535
    > . 5841:7301(1460) ack 1
    > . 7301:8761(1460) ack 1
    +20 < . 1:1(0) ack 8761 win 65535
    > . 8761:10221(1460) ack 1
    > . 10221:11681(1460) ack 1
  `,
  '2883, 8985 7.4: a probe that was in vain does not': `
    < S 0:0(0) win 65535 <mss 1460,sackOK>
    accept
    > S. 0:0(0) ack 1
    +20 < . 1:1(0) ack 1 win 65535
    write 2920
    > . 1:1461(1460) ack 1
    > P. 1461:2921(1460) ack 1
    +40 > P. 1461:2921(1460) ack 1
    +1 < . 1:1(0) ack 2921 win 65535 <sack 1461:2921>
    write 5840
    > . 2921:4381(1460) ack 1
    > . 4381:5841(1460) ack 1
    > . 5841:7301(1460) ack 1
    > P. 7301:8761(1460) ack 1
  `,
  '2018 8: SACKed segments are not sent again after a time-out': `${ACCEPTED_FAR}
    write 5840
    > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    > . 2921:4381(1460) ack 1
    > P. 4381:5841(1460) ack 1
    +20 < . 1:1(0) ack 1 win 10000 <sack 2921:4381>
    +5 > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    +220 > . 1:1461(1460) ack 1
    +1 < . 1:1(0) ack 1461 win 10000 <sack 2921:4381>
    > . 1461:2921(1460) ack 1
    > P. 4381:5841(1460) ack 1
    +1 < . 1:1(0) ack 5841 win 10000
  `,
  '2018 8: unless the peer has thrown them away': `${ACCEPTED_FAR}
    write 4380
    > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    > P. 2921:4381(1460) ack 1
    +20 < . 1:1(0) ack 1 win 10000 <sack 1461:2921>
    +5 > . 1:1461(1460) ack 1
    +20 < . 1:1(0) ack 1461 win 10000
    > P. 2921:4381(1460) ack 1
    +220 > . 1461:2921(1460) ack 1
    < . 1:1(0) ack 4381 win 10000
  `,
  'a partly SACKed super-segment is cut at segments only': [
    `${ACCEPTED_FAR}
    write 14600
    > P. 1:14601(14600) ack 1 win 2048 gso 1460
    +10 < . 1:1(0) ack 1 win 10000 <sack 1000:9000>
    > . 1:1461(1460) ack 1
    +10 < . 1:1(0) ack 8761 win 10000
    > P. 8761:14601(5840) ack 1 win 2048 gso 1460
    +10 < . 1:1(0) ack 14601 win 10000
  `,
    { path: tap },
  ],
};

const spurious: Cases = {
  '4015: a time-out that an old timestamp proves needless is undone': `${ACCEPTED_STAMPS}
    write 14480
    > . 1:1449(1448) ack 1
    > . 1449:2897(1448) ack 1
    > . 2897:4345(1448) ack 1
    > . 4345:5793(1448) ack 1
    > . 5793:7241(1448) ack 1
    > . 7241:8689(1448) ack 1
    > . 8689:10137(1448) ack 1
    > . 10137:11585(1448) ack 1
    > . 11585:13033(1448) ack 1
    > P. 13033:14481(1448) ack 1 win 2048 <TS val 0 ecr 100>
    +10 > P. 13033:14481(1448) ack 1 win 2048 <TS val 10 ecr 100>   // tail loss probe
    +200 > . 1:1449(1448) ack 1 win 2048 <TS val 210 ecr 100>
    +5 < . 1:1(0) ack 1449 win 10000 <TS val 300 ecr 0>             // for the first transmission
    count spuriousRecoveries 1
    +1 < . 1:1(0) ack 14481 win 10000 <TS val 301 ecr 0>
    write 14480
    > . 14481:15929(1448) ack 1
    > . 15929:17377(1448) ack 1
    > . 17377:18825(1448) ack 1
    > . 18825:20273(1448) ack 1
    > . 20273:21721(1448) ack 1
    > . 21721:23169(1448) ack 1
    > . 23169:24617(1448) ack 1
    > . 24617:26065(1448) ack 1
    > . 26065:27513(1448) ack 1
    > P. 27513:28961(1448) ack 1
  `,
  '4015: a time-out that the echo confirms stands': `${ACCEPTED_STAMPS}
    write 1448
    > P. 1:1449(1448) ack 1
    +200 > P. 1:1449(1448) ack 1
    +5 < . 1:1(0) ack 1449 win 10000 <TS val 300 ecr 200>
    count spuriousRecoveries 0
  `,
  '4015: a fast recovery that was reordering is undone': `${ACCEPTED_STAMPS}
    write 7240
    > . 1:1449(1448) ack 1
    > . 1449:2897(1448) ack 1
    > . 2897:4345(1448) ack 1
    > . 4345:5793(1448) ack 1
    > P. 5793:7241(1448) ack 1
    +5 < . 1:1(0) ack 1 win 10000 <TS val 101 ecr 0,sack 1449:5793>
    > . 1:1449(1448) ack 1
    +2 < . 1:1(0) ack 7241 win 10000 <TS val 102 ecr 0>
    count spuriousRecoveries 1
  `,
};

const pathMtu: Cases = {
  '1191 6.5: a narrower path cuts what is on the wire anew, at once': `${ACCEPTED}
    write 2920
    > . 1:1461(1460) ack 1
    > P. 1461:2921(1460) ack 1
    path 1020
    > . 1:1001(1000) ack 1
    > . 1001:1461(460) ack 1
    > . 1461:2461(1000) ack 1
    > P. 2461:2921(460) ack 1
    count timeouts 0
    count fastRecoveries 0
    +5 < . 1:1(0) ack 2921 win 65535
    write 1500
    > . 2921:3921(1000) ack 1
    > P. 3921:4421(500) ack 1
  `,
  'a wider path lets later segments grow': [
    `${ACCEPTED}
    path 1020
    write 1000
    > P. 1:1001(1000) ack 1
    path 1480
    < . 1:1(0) ack 1001 win 65535
    write 1460
    > P. 1001:2461(1460) ack 1
  `,
    { aloneBecause: 'no ICMP makes a path wider' },
  ],
  'an absurdly narrow path is not followed below 216 bytes': `${ACCEPTED}
    path 60
    write 300
    > . 1:217(216) ack 1
    > P. 217:301(84) ack 1
  `,
};

const blackHole: Cases = {
  '4821 7.7, 8899 5.1.1: large segments that vanish again and again are cut smaller, and tried again ten minutes later': `${ACCEPTED}
    write 1460
    > P. 1:1461(1460) ack 1
    +200 > P. 1:1461(1460) ack 1
    +400 > P. 1:1461(1460) ack 1
    count blackHoles 0
    +800 > . 1:1201(1200) ack 1
    > P. 1201:1461(260) ack 1
    count blackHoles 1
    < . 1:1(0) ack 1461 win 65535
    write 1460
    > . 1461:2661(1200) ack 1
    > P. 2661:2921(260) ack 1
    < . 1:1(0) ack 2921 win 65535
    +600000 write 1460
    > P. 2921:4381(1460) ack 1
  `,
  '4821 7.7: small segments that vanish tell nothing about the path': `${ACCEPTED}
    write 1000
    > P. 1:1001(1000) ack 1
    +200 > P. 1:1001(1000) ack 1
    +400 > P. 1:1001(1000) ack 1
    +800 > P. 1:1001(1000) ack 1
    count blackHoles 0
  `,
};

export const recoveryTopics: Topics = {
  'time-outs': timeouts,
  'fast recovery without SACK': fast,
  'SACK as the receiver': sackReceiver,
  'RACK and TLP as the sender': rack,
  'needless recoveries': spurious,
  'path MTU': pathMtu,
  'black holes': blackHole,
};
