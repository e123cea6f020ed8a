/** Data in order, acknowledgments, windows and urgent data (RFC 9293 section 3.8, RFC 5681 section 4.2, RFC 7323). */
import { ACCEPTED, ACCEPTED_STAMPS, type Cases, type Topics } from './script.ts';

const tap = { segmentBytesMax: 1480, superSegmentBytesMax: 65515 };
const jumbo = { segmentBytesMax: 65500, superSegmentBytesMax: 65515 };

const receiving: Cases = {
  '5681 4.2: a single segment is acknowledged after the delay': `${ACCEPTED}
    < . 1:101(100) ack 1 win 65535
    unread 100
    read 100
    +40 > . 1:1(0) ack 101
  `,
  '5681 4.2: the second full segment is acknowledged at once': `${ACCEPTED}
    < . 1:1461(1460) ack 1 win 65535
    < . 1461:2921(1460) ack 1 win 65535
    > . 1:1(0) ack 2921
    read 2920
  `,
  '5681 4.2: with timestamps a full segment is shorter, and the second is acknowledged all the same': `${ACCEPTED_STAMPS}
    < . 1:1449(1448) ack 1 win 500 <TS val 100 ecr 0>
    < . 1449:2897(1448) ack 1 win 500 <TS val 100 ecr 0>
    > . 1:1(0) ack 2897
  `,
  'small segments are acknowledged once for the delay, not each': `${ACCEPTED}
    < . 1:101(100) ack 1 win 65535
    +10 < . 101:201(100) ack 1 win 65535
    +10 < . 201:301(100) ack 1 win 65535
    read 300
    +20 > . 1:1(0) ack 301
  `,
  'a batch of many segments is acknowledged once': `${ACCEPTED}
    <& . 1:1461(1460) ack 1 win 65535
    <& . 1461:2921(1460) ack 1 win 65535
    <& . 2921:4381(1460) ack 1 win 65535
    < . 4381:5841(1460) ack 1 win 65535
    > . 1:1(0) ack 5841
    read 5840
  `,
  'a super-frame of many segments is acknowledged at once': `${ACCEPTED}
    < . 1:29201(29200) ack 1 win 65535
    > . 1:1(0) ack 29201
    read 29200
  `,
  'with jumbo segments 16 KiB are acknowledged at once': [
    `
    < S 0:0(0) win 65535 <mss 65480,wscale 7>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 500
    < . 1:16385(16384) ack 1 win 500
    > . 1:1(0) ack 16385
    read 16384
  `,
    { path: jumbo },
  ],
  'data of ours carries the ACK': `${ACCEPTED}
    < . 1:101(100) ack 1 win 65535
    read 100
    +10 write 50
    > P. 1:51(50) ack 101
    +10 < . 101:101(0) ack 51 win 65535
    +100 silence
  `,
  '9293 3.10.7.4: data sent twice is delivered once and acknowledged at once': `${ACCEPTED}
    < . 1:101(100) ack 1 win 65535
    read 100
    +40 > . 1:1(0) ack 101
    < . 1:101(100) ack 1 win 65535
    > . 1:1(0) ack 101
    unread 0
    count duplicateBytes 100
  `,
  'a segment that is in part old brings what is new': `${ACCEPTED}
    < . 1:101(100) ack 1 win 65535
    < . 51:201(150) ack 1 win 65535
    > . 1:1(0) ack 201
    unread 200
    read 200
  `,
  '9293 3.8.5: urgent data is delivered in line': `${ACCEPTED}
    < PU. 1:11(10) ack 1 win 65535 urg 10
    read 10
    +40 > . 1:1(0) ack 11
  `,
  'a segment without ACK is dropped (9293 3.10.7.4 fifth)': `${ACCEPTED}
    < P 1:11(10)
    unread 0
    +1000 silence
  `,
  'bytes taken right from the frame are acknowledged and not buffered': [
    `${ACCEPTED}
    < . 1:29201(29200) ack 1 win 65535
    unread 0
    memory 0
    > . 1:1(0) ack 29201 win 65535
  `,
    { takes: 1e9 },
  ],
  'what the host does not take right from the frame is buffered': [
    `${ACCEPTED}
    < . 1:20001(20000) ack 1 win 65535
    > . 1:1(0) ack 20001 win 58535
    unread 7000
    read 7000
    memory 0
  `,
    { takes: 13_000 },
  ],
  'a segment taken directly that covers all that waited gives the memory back': [
    `${ACCEPTED}
    <& . 2921:4381(1460) ack 1 win 65535
    < P. 1:13001(13000) ack 1 win 65535
    unread 0
    memory 0
    > . 1:1(0) ack 13001
  `,
    { takes: 13_000 },
  ],
  'small segments are not offered one by one': [
    `${ACCEPTED}
    < . 1:1001(1000) ack 1 win 65535
    unread 1000
    read 1000
    +40 > . 1:1(0) ack 1001
  `,
    { takes: 1e9 },
  ],
};

const receiveWindow: Cases = {
  'what the host has not taken closes the window': [
    `${ACCEPTED}
    < . 1:3001(3000) ack 1 win 65535
    > . 1:1(0) ack 3001 win 5192
    < . 3001:8193(5192) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    unread 8192
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  '9293 3.8.6: data beyond the window is not taken': [
    `${ACCEPTED}
    < . 1:8193(8192) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    < . 8193:9193(1000) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    unread 8192
    count outOfWindow 1
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  '9293 3.10.7.4: a segment is cut at the right edge of the window': [
    `${ACCEPTED}
    < . 1:9001(9000) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    unread 8192
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  'a FIN that lies beyond the window with its data does not count': [
    `${ACCEPTED}
    < F. 1:9001(9000) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    state established
    read 8192
    > . 1:1(0) ack 8193 win 8192
    < F. 8193:9001(808) ack 1 win 65535
    > . 1:1(0) ack 9002
    state close-wait
    read 808
    eof
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  'a FIN right at a closed window is taken': [
    `${ACCEPTED}
    < . 1:8193(8192) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    < F. 8193:8193(0) ack 1 win 65535
    > . 1:1(0) ack 8194
    state close-wait
    eof no
    read 8192
    eof
    > . 1:1(0) ack 8194
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  '9293 3.8.6.2.2: a closed window is not opened for a few bytes': [
    `${ACCEPTED}
    < . 1:8193(8192) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    read 1000
    read 1000
    read 1000
    +100 read 1096
    > . 1:1(0) ack 8193 win 4096
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  'a zero-window probe is answered by the state of things': [
    `${ACCEPTED}
    < . 1:8193(8192) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    +200 < . 8193:8194(1) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    +400 < . 8193:8194(1) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  'an ACK is processed even if the window is closed': [
    `${ACCEPTED}
    < . 1:8193(8192) ack 1 win 65535
    > . 1:1(0) ack 8193 win 0
    write 100
    > P. 1:101(100) ack 8193
    < . 8193:9193(1000) ack 101 win 65535
    > . 101:101(0) ack 8193 win 0
    +2000 silence
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  'the right edge never moves left': [
    `${ACCEPTED}
    < . 1:1001(1000) ack 1 win 65535
    +40 > . 1:1(0) ack 1001 win 7192
    < . 1001:2001(1000) ack 1 win 65535
    read 600
    +40 > . 1:1(0) ack 2001 win 6192
  `,
    { config: { receiveBytesInitial: 8192, receiveBytesMax: 8192 } },
  ],
  '7323 2.4: rounding by the scale never makes us refuse what was offered': [
    `
    < S 0:0(0) win 65535 <mss 1460,sackOK,wscale 7>
    accept
    > S. 0:0(0) ack 1 win 8192 <mss 1460,sackOK,wscale 7>
    < . 1:101(100) ack 1 win 500
    +40 > . 1:1(0) ack 101 win 63
    < . 101:8193(8092) ack 1 win 500
    > . 1:1(0) ack 8193 win 0
    unread 8192
  `,
    { config: { receiveBytesInitial: 8192 } },
  ],
  'the window grows while the host takes bytes fast': [
    `
    < S 0:0(0) win 65535 <mss 1460,sackOK,wscale 7>
    accept
    > S. 0:0(0) ack 1 win 8192 <mss 1460,sackOK,wscale 7>
    < . 1:1(0) ack 1 win 500
    +1 < . 1:4001(4000) ack 1 win 500
    > . 1:1(0) ack 4001 win 32
    < . 4001:8193(4192) ack 1 win 500
    > . 1:1(0) ack 8193 win 0
    read 8192
    > . 1:1(0) ack 8193 win 128   // 16 KiB
  `,
    { config: { receiveBytesInitial: 8192 } },
  ],
  'the window does not grow for a slow transfer': [
    `
    < S 0:0(0) win 65535 <mss 1460,sackOK,wscale 7>
    accept
    > S. 0:0(0) ack 1 win 8192 <mss 1460,sackOK,wscale 7>
    < . 1:1(0) ack 1 win 500
    +1000 < . 1:8193(8192) ack 1 win 500
    > . 1:1(0) ack 8193 win 0
    read 8192
    > . 1:1(0) ack 8193 win 64
  `,
    { config: { receiveBytesInitial: 8192 } },
  ],
  'no memory is held for an empty buffer': `${ACCEPTED}
    memory 0
    < . 1:1461(1460) ack 1 win 65535
    memory 4096
    read 1460
    memory 0
    +40 > . 1:1(0) ack 1461
    write 100
    > P. 1:101(100) ack 1461
    memory 65536
    < . 1461:1461(0) ack 101 win 65535
    memory 0
  `,
  'memory follows use: up at once, down by halves': `${ACCEPTED}
    < . 1:20001(20000) ack 1 win 65535
    > . 1:1(0) ack 20001
    memory 32768
    read 20000
    memory 0
    < . 20001:20101(100) ack 1 win 65535
    memory 32768
    read 100
    < . 20101:20201(100) ack 1 win 65535
    memory 16384
    read 100
    < . 20201:20301(100) ack 1 win 65535
    memory 8192
    read 100
    +40 > . 1:1(0) ack 20301
    memory 0
  `,
  'without memory a segment is dropped, and its retransmission taken later': [
    `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    < . 1:1001(1000) ack 1 win 65535
    > . 101:101(0) ack 1
    unread 0
    count reassemblyDropped 1
    < . 1:1001(1000) ack 101 win 65535
    unread 1000
    read 1000
    +40 > . 101:101(0) ack 1001
  `,
    { poolBytes: 65_536, aloneBecause: 'a stack has more memory' },
  ],
};

const sending: Cases = {
  '9293 3.7: bytes are cut into full segments, PSH on the last': `${ACCEPTED}
    write 3000
    > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    > P. 2921:3001(80) ack 1
    < . 1:1(0) ack 3001 win 65535
    +5000 silence
  `,
  'a link that cuts gets one super-segment': [
    `${ACCEPTED}
    write 10000
    > P. 1:10001(10000) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 10001 win 65535
  `,
    { path: tap },
  ],
  'a super-segment that the congestion window ends has whole segments': [
    `${ACCEPTED}
    write 20000
    > . 1:14601(14600) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 14601 win 65535
    > P. 14601:20001(5400) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 20001 win 65535
  `,
    { path: tap },
  ],
  'a super-segment that the peer window ends has whole segments': [
    `
    < S 0:0(0) win 4000 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 4000
    write 10000
    > . 1:2921(2920) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 2921 win 4000
    > . 2921:5841(2920) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 5841 win 65535
    > P. 5841:10001(4160) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 10001 win 65535
  `,
    { path: tap },
  ],
  'segments stay whole across the wrap of the ring': [
    `${ACCEPTED}
    write 29200
    > . 1:14601(14600) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 14601 win 65535
    > P. 14601:29201(14600) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 29201 win 65535
    write 20000
    > . 29201:32121(2920) ack 1 win 65535 gso 1460
    > . 32121:33581(1460) ack 1 win 65535
    > P. 33581:49201(15620) ack 1 win 65535 gso 1460
    < . 1:1(0) ack 49201 win 65535
  `,
    {
      path: tap,
      config: { sendBytesInitial: 32_768 },
      aloneBecause: "where the wrap is depends on the stack's initial sequence number",
    },
  ],
  'a small piece is sent at once, whatever is outstanding': `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    write 10
    > P. 11:21(10) ack 1
    < . 1:1(0) ack 21 win 65535
  `,
  "9293 3.7.4: with Nagle's algorithm a small piece waits for the ACK": [
    `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    write 10
    write 10
    +20 < . 1:1(0) ack 11 win 65535
    > P. 11:31(20) ack 1
    < . 1:1(0) ack 31 win 65535
  `,
    { config: { nagle: true } },
  ],
  '9293 3.7.4: with Nagle a full segment does not wait': [
    `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    write 1460
    > P. 11:1471(1460) ack 1
    < . 1:1(0) ack 1471 win 65535
  `,
    { config: { nagle: true } },
  ],
  '9293 3.8.6.2.1: a window smaller than a segment and than half of its maximum is not used': `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    < . 1:1(0) ack 11 win 500
    write 3000
    +100 < . 1:1(0) ack 11 win 65535
    > . 11:1471(1460) ack 1
    > . 1471:2931(1460) ack 1
    > P. 2931:3011(80) ack 1
    < . 1:1(0) ack 3011 win 65535
  `,
  '9293 3.8.6.2.1: but after the override time-out it is': `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    < . 1:1(0) ack 11 win 500
    write 3000
    +200 > P. 11:511(500) ack 1
    < . 1:1(0) ack 511 win 65535
    > . 511:1971(1460) ack 1
    > P. 1971:3011(1040) ack 1
    < . 1:1(0) ack 3011 win 65535
  `,
  'a segment is at most half of the largest window, so that there are two to acknowledge': [
    `
    < S 0:0(0) win 65535 <mss 65480>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    write 65536
    > . 1:32768(32767) ack 1
    > P. 32768:65535(32767) ack 1
    < . 1:1(0) ack 65535 win 65535
    > P. 65535:65537(2) ack 1
  `,
    { path: jumbo },
  ],
  'PSH is set for every half window, since a kernel delays the ACK of what is not pushed': `
    < S 0:0(0) win 6000 <mss 1460>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 6000
    write 9000
    > . 1:1461(1460) ack 1 win 65535
    > . 1461:2921(1460) ack 1 win 65535
    > P. 2921:4381(1460) ack 1
    > . 4381:5841(1460) ack 1
    +1 < . 1:1(0) ack 5841 win 6000
    > . 5841:7301(1460) ack 1
    > P. 7301:8761(1460) ack 1
    > P. 8761:9001(240) ack 1
  `,
  'an old segment does not change the window (9293 3.10.7.4 SND.WL1)': `${ACCEPTED}
    < . 1:101(100) ack 1 win 3000
    read 100
    +40 > . 1:1(0) ack 101
    < . 1:101(100) ack 1 win 65535
    > . 1:1(0) ack 101
    write 5000
    > . 1:1461(1460) ack 101
    > . 1461:2921(1460) ack 101
  `,
  'room is told when a good part of the buffer is free': [
    `${ACCEPTED}
    room
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
    room no
    < . 1:1(0) ack 1461 win 65535
    room no
    < . 1:1(0) ack 14601 win 65535
    room
  `,
    { config: { sendBytesInitial: 16_384, sendBytesMax: 16_384 } },
  ],
};

const zeroWindow: Cases = {
  '9293 3.8.6.1: a closed window is probed with one byte, with back-off': `${ACCEPTED}
    < . 1:1(0) ack 1 win 0
    write 5000
    +200 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +400 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +800 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 65535
    > . 1:1461(1460) ack 1
    > . 1461:2921(1460) ack 1
    > . 2921:4381(1460) ack 1
    > P. 4381:5001(620) ack 1
    < . 1:1(0) ack 5001 win 65535
  `,
  'a probe whose byte is taken moves on': `${ACCEPTED}
    < . 1:1(0) ack 1 win 0
    write 3
    +200 > . 1:2(1) ack 1
    < . 1:1(0) ack 2 win 0
    +200 > . 2:3(1) ack 1
    < . 1:1(0) ack 3 win 100
    > P. 3:4(1) ack 1
    < . 1:1(0) ack 4 win 100
    +5000 silence
  `,
  'a peer that keeps its window closed and answers is never given up': [
    `${ACCEPTED}
    < . 1:1(0) ack 1 win 0
    write 10
    +200 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +400 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +800 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +1600 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +3200 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +6000 > . 1:2(1) ack 1
    < . 1:1(0) ack 1 win 0
    +6000 > . 1:2(1) ack 1
    state established
  `,
    { config: { userTimeoutMs: 10_000, rtoMsMax: 6000 } },
  ],
  'a peer that does not answer probes is given up': [
    `${ACCEPTED}
    < . 1:1(0) ack 1 win 0
    write 10
    +200 > . 1:2(1) ack 1
    +400 > . 1:2(1) ack 1
    +800 > . 1:2(1) ack 1
    +1600 > R. 1:1(0) ack 1
    failure timed-out
    dead
    memory 0
  `,
    { config: { userTimeoutMs: 2_000 } },
  ],
  'a FIN behind a closed window is the probe': `${ACCEPTED}
    < . 1:1(0) ack 1 win 0
    finish
    +200 > F. 1:1(0) ack 1
    < . 1:1(0) ack 2 win 0
    state fin-wait-2
  `,
  'a window that was closed over bytes in flight and opens again does not leave them to a long back-off': `${ACCEPTED}
    write 2920
    > . 1:1461(1460) ack 1
    > P. 1461:2921(1460) ack 1
    +10 < . 1:1(0) ack 1 win 0
    +190 > . 1:1461(1460) ack 1
    < . 1:1(0) ack 1 win 0
    +400 > . 1:1461(1460) ack 1
    < . 1:1(0) ack 1 win 0
    +700 < . 1:1(0) ack 1 win 65535   // the next time-out would be in 100 ms, the one after that in 1600
    > P. 1461:2921(1460) ack 1
    > . 1:1461(1460) ack 1
    +5 < . 1:1(0) ack 2921 win 65535
    +5000 silence
  `,
  'bytes of a probe stay in order with what follows': `${ACCEPTED}
    < . 1:1(0) ack 1 win 0
    write 10
    +200 > . 1:2(1) ack 1
    +100 < . 1:1(0) ack 1 win 5
    +300 > P. 1:6(5) ack 1   // the override time-out for a silly window
    < . 1:1(0) ack 6 win 5
    > P. 6:11(5) ack 1
    < . 1:1(0) ack 11 win 5
  `,
};

const stamps: Cases = {
  '7323 3.2: every segment carries a timestamp and echoes the latest in order': `${ACCEPTED_STAMPS}
    +50 < . 1:1001(1000) ack 1 win 500 <TS val 150 ecr 0>
    +40 > . 1:1(0) ack 1001 win 2040 <TS val 90 ecr 150>
    read 1000
  `,
  '7323 4.3: of segments acknowledged together the earliest is echoed': `${ACCEPTED_STAMPS}
    <& . 1:1001(1000) ack 1 win 500 <TS val 110 ecr 0>
    < . 1001:3001(2000) ack 1 win 500 <TS val 120 ecr 0>
    > . 1:1(0) ack 3001 win 2024 <TS val 0 ecr 110>
    read 3000
  `,
  '7323 4.3: a segment beyond a hole does not change the echo': `${ACCEPTED_STAMPS}
    < . 1001:2001(1000) ack 1 win 500 <TS val 130 ecr 0>
    > . 1:1(0) ack 1 win 2048 <TS val 0 ecr 100,sack 1001:2001>
  `,
  '7323 5.3: PAWS drops an old duplicate and answers by an ACK': `${ACCEPTED_STAMPS}
    < . 1:1001(1000) ack 1 win 500 <TS val 99 ecr 0>
    > . 1:1(0) ack 1
    unread 0
    count pawsDropped 1
  `,
  '7323 5.3: a timestamp that has wrapped is newer': `
    < S 0:0(0) win 65535 <mss 1460,TS val 2147483640 ecr 0>
    accept
    > S. 0:0(0) ack 1
    < . 1:1(0) ack 1 win 1000 <TS val 2147483647 ecr 0>
    < . 1:101(100) ack 1 win 1000 <TS val -2147483640 ecr 0>
    unread 100
    read 100
    +40 > . 1:1(0) ack 101 <TS val 40 ecr -2147483640>
  `,
  '7323 5.5: after 24 days an old timestamp is acceptable again': [
    `${ACCEPTED_STAMPS}
    +2160000000 < . 1:101(100) ack 1 win 500 <TS val 99 ecr 0>
    unread 100
  `,
    { config: { keepAliveMs: 0 } },
  ],
  '7323 3.2: a segment without a timestamp is dropped': `${ACCEPTED_STAMPS}
    < . 1:1001(1000) ack 1 win 500
    unread 0
    +1000 silence
  `,
  '7323 5.2: a RST needs no timestamp': `${ACCEPTED_STAMPS}
    < R 1:1(0)
    failure reset
  `,
};

export const transferTopics: Topics = {
  receiving: receiving,
  'the receive window': receiveWindow,
  sending: sending,
  'a closed window': zeroWindow,
  timestamps: stamps,
};
