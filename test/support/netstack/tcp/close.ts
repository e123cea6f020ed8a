/** Closing, resets, hostile segments and dead peers (RFC 9293 sections 3.6, 3.8.3, 3.8.4, 3.10; RFC 5961). */
import { ACCEPTED, ACCEPTED_STAMPS, type Cases, type Topics } from './script.ts';

const closing: Cases = {
  '9293 3.6 figure 12: we close first, then the peer': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    state fin-wait-1
    < . 1:1(0) ack 2 win 65535
    state fin-wait-2
    +50 < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    state time-wait
    eof
    +1000 state closed
    dead
    failure none
  `,
  'the peer closes first, then we': `${ACCEPTED}
    < F. 1:1(0) ack 1 win 65535
    > . 1:1(0) ack 2
    state close-wait
    eof
    +500 finish
    > F. 1:1(0) ack 2
    state last-ack
    < . 2:2(0) ack 2 win 65535
    dead
    failure none
  `,
  '9293 3.6 figure 13: both close at the same time': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 1 win 65535
    > . 2:2(0) ack 2
    state closing
    < . 2:2(0) ack 2 win 65535
    state time-wait
    +1000 dead
  `,
  'FIN and the ACK of ours in one segment': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    state time-wait
  `,
  'FIN rides on the last data': `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    < . 1:1(0) ack 11 win 65535
    write 2000
    > . 11:1471(1460) ack 1
    > P. 1471:2011(540) ack 1
    finish
    > F. 2011:2011(0) ack 1
    < . 1:1(0) ack 2012 win 65535
    state fin-wait-2
  `,
  'half-close: after our FIN the peer sends on, and all arrives': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < . 1:1(0) ack 2 win 65535
    < . 1:3001(3000) ack 2 win 65535
    > . 2:2(0) ack 3001
    read 3000
    +100000 < F. 3001:4001(1000) ack 2 win 65535
    > . 2:2(0) ack 4002
    read 1000
    eof
    state time-wait
  `,
  'half-close: after the peer FIN we send on, and all goes out': `${ACCEPTED}
    < F. 1:1(0) ack 1 win 65535
    > . 1:1(0) ack 2
    write 3000
    > . 1:1461(1460) ack 2
    > . 1461:2921(1460) ack 2
    > P. 2921:3001(80) ack 2
    < . 2:2(0) ack 3001 win 65535
    finish
    > F. 3001:3001(0) ack 2
    < . 2:2(0) ack 3002 win 65535
    dead
  `,
  'data in FIN-WAIT-1 is taken': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < . 1:2001(2000) ack 1 win 65535
    unread 2000
    read 2000
    < . 2001:3001(1000) ack 2 win 65535
    > . 2:2(0) ack 3001
    state fin-wait-2
    unread 1000
  `,
  'a lost FIN is sent again': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    +200 > F. 1:1(0) ack 1
    +400 > F. 1:1(0) ack 1
    < . 1:1(0) ack 2 win 65535
    state fin-wait-2
    +10000 silence
  `,
  'a FIN before its data waits for them': `${ACCEPTED}
    < F. 1001:2001(1000) ack 1 win 65535
    > . 1:1(0) ack 1
    state established
    < . 1:1001(1000) ack 1 win 65535
    > . 1:1(0) ack 2002
    state close-wait
    eof no
    read 2000
    eof
  `,
  'data after a FIN is not data': `${ACCEPTED}
    < F. 1001:1001(0) ack 1 win 65535
    > . 1:1(0) ack 1
    < . 1:3001(3000) ack 1 win 65535
    > . 1:1(0) ack 1002
    unread 1000
  `,
  'a FIN that comes again is acknowledged again': `${ACCEPTED}
    < F. 1:1(0) ack 1 win 65535
    > . 1:1(0) ack 2
    +200 < F. 1:1(0) ack 1 win 65535
    > . 1:1(0) ack 2
    state close-wait
  `,
  '9293 3.10.7.4 eighth: a FIN again in TIME-WAIT is acknowledged and starts the wait anew': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    +700 < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    +700 state time-wait
    +400 dead
  `,
  'the last ACK is sent even if there is no TIME-WAIT': [
    `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    dead
  `,
    { config: { timeWaitMs: 0 } },
  ],
  '9293 3.6.1: TIME-WAIT gives way to a SYN with a higher number': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    replaced S 90000:90000(0) win 100 <mss 1460>
    kept S 1:1(0) win 100 <mss 1460>
    kept S. 90000:90000(0) ack 5 win 100 <mss 1460>
    kept R 90000:90000(0) win 100
  `,
  '6191: TIME-WAIT gives way to a SYN with a later timestamp, whatever its number': `${ACCEPTED_STAMPS}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 2 win 500 <TS val 200 ecr 0>
    > . 2:2(0) ack 2
    replaced S 0:0(0) win 100 <mss 1460,TS val 201 ecr 0>
    kept S 0:0(0) win 100 <mss 1460,TS val 199 ecr 0>
  `,
  'an established connection does not give way': `${ACCEPTED}
    kept S 90000:90000(0) win 100 <mss 1460>
  `,
  'bytes that the host has not taken outlive the connection': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:2001(2000) ack 2 win 65535
    > . 2:2(0) ack 2002
    +1000 state closed
    dead no
    eof no
    read 2000
    eof
    dead
    memory 0
  `,
  'finish twice is once': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    finish
    < . 1:1(0) ack 2 win 65535
  `,
  'no bytes go in after finish': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    room no
  `,
};

const resets: Cases = {
  '5961 3.2: a RST with exactly the next number ends the connection': `${ACCEPTED}
    < R 1:1(0)
    state closed
    failure reset
    dead
  `,
  '5961 3.2: a RST elsewhere in the window is challenged': `${ACCEPTED}
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    state established
    count challengeAcks 1
  `,
  '5961 3.2: a RST outside the window is ignored': `${ACCEPTED}
    < R 400000:400000(0)
    state established
    +1000 silence
  `,
  'the RST that answers a challenge has the right number and counts': `${ACCEPTED}
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1:1(0)
    failure reset
  `,
  'what came in order before a RST can still be taken, as from a kernel': [
    `${ACCEPTED}
    < . 1:1001(1000) ack 1 win 65535
    < . 2001:3001(1000) ack 1 win 65535
    > . 1:1(0) ack 1001
    < R 1001:1001(0)
    failure reset
    unread 1000
    dead no
    read 1000
    eof no
    dead
    memory 0
  `,
    { aloneBecause: 'the stack gives the host one chance' },
  ],
  'abort and discard drop what the host has not taken': `${ACCEPTED}
    < . 1:1001(1000) ack 1 win 65535
    abort
    > R. 1:1(0) ack 1001
    unread 0
    dead
    memory 0
  `,
  'a RST in FIN-WAIT-2 is a failure: the other half was still open': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < . 1:1(0) ack 2 win 65535
    < R 1:1(0)
    failure reset
  `,
  '9293 3.10.7.4: a RST in LAST-ACK is an end, not a failure': `${ACCEPTED}
    < F. 1:1(0) ack 1 win 65535
    > . 1:1(0) ack 2
    finish
    > F. 1:1(0) ack 2
    < R 2:2(0)
    failure none
    dead
  `,
  '1337: a RST in TIME-WAIT ends it': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    < R 2:2(0)
    failure none
    dead
  `,
  '5961 4.2: a SYN in a connection is challenged, wherever it lies': `${ACCEPTED}
    < S 1:1(0) win 100
    > . 1:1(0) ack 1
    < S 900000:900000(0) win 100
    > . 1:1(0) ack 1
    state established
    count challengeAcks 2
  `,
  '5961 5.2: an ACK of something not sent is challenged, and its data dropped': `${ACCEPTED}
    < . 1:101(100) ack 5000 win 65535
    > . 1:1(0) ack 1
    unread 0
    count challengeAcks 1
  `,
  '5961 5.2: an ACK older than any window is challenged': `${ACCEPTED}
    write 1000
    > P. 1:1001(1000) ack 1
    < . 1:1(0) ack 1001 win 65535
    < . 1:101(100) ack 4294900000 win 65535
    > . 1001:1001(0) ack 1
    unread 0
  `,
  'an old ACK within the window is no offence, and its data counts': `${ACCEPTED}
    write 1000
    > P. 1:1001(1000) ack 1
    < . 1:1(0) ack 1001 win 65535
    < . 1:101(100) ack 500 win 65535
    unread 100
    +40 > . 1001:1001(0) ack 101
  `,
  '5961 10: challenges are limited, and the limit renews': `${ACCEPTED}
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    > . 1:1(0) ack 1
    < R 1001:1001(0)
    < R 1001:1001(0)
    count challengeAcksSuppressed 2
    +1000 < R 1001:1001(0)
    > . 1:1(0) ack 1
  `,
  'abort sends RST and forgets everything': `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    abort
    > R. 101:101(0) ack 1
    failure aborted
    dead
    memory 0
  `,
  'abort in TIME-WAIT is silent': `${ACCEPTED}
    finish
    > F. 1:1(0) ack 1
    < F. 1:1(0) ack 2 win 65535
    > . 2:2(0) ack 2
    abort
    dead
    +5000 silence
  `,
  'discard is silent': [
    `${ACCEPTED}
    write 100
    > P. 1:101(100) ack 1
    discard
    dead
    memory 0
    +60000 silence
  `,
    { aloneBecause: 'the stack discards for reasons of its own' },
  ],
  'nothing is answered after the end': [
    `${ACCEPTED}
    < R 1:1(0)
    < . 1:101(100) ack 1 win 65535
    dead
    +5000 silence
  `,
    { aloneBecause: 'the stack answers for what is no connection' },
  ],
  'a pure ACK outside the window is answered, within limits': `${ACCEPTED}
    < . 900000:900000(0) ack 1 win 65535
    > . 1:1(0) ack 1
  `,
};

const liveness: Cases = {
  '9293 3.8.4: an idle peer is asked whether it lives, and goes on': [
    `${ACCEPTED}
    +5000 > . 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    +5000 > . 0:0(0) ack 1
    < . 1:1(0) ack 1 win 65535
    state established
  `,
    { config: { keepAliveMs: 5000, keepAliveIntervalMs: 1000, keepAliveProbes: 3 } },
  ],
  '9293 3.8.4: a peer that answers no probe is given up': [
    `${ACCEPTED}
    +5000 > . 0:0(0) ack 1
    +1000 > . 0:0(0) ack 1
    +1000 > . 0:0(0) ack 1
    +1000 > R. 1:1(0) ack 1
    failure timed-out
    dead
  `,
    { config: { keepAliveMs: 5000, keepAliveIntervalMs: 1000, keepAliveProbes: 3 } },
  ],
  'keep-alive is silent while a retransmission asks the same': [
    `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    +200 > P. 1:11(10) ack 1
    +400 > P. 1:11(10) ack 1
    +800 > P. 1:11(10) ack 1
    < . 1:1(0) ack 11 win 65535
  `,
    { config: { keepAliveMs: 500, keepAliveIntervalMs: 300, keepAliveProbes: 3 } },
  ],
  'a keep-alive probe of the peer is answered': `${ACCEPTED}
    +100000 < . 0:0(0) ack 1 win 65535
    > . 1:1(0) ack 1
  `,
  'a keep-alive probe with a byte is answered (9293 3.8.4)': `${ACCEPTED}
    < . 1:2(1) ack 1 win 65535
    read 1
    +40 > . 1:1(0) ack 2
    +100000 < . 1:2(1) ack 1 win 65535
    > . 1:1(0) ack 2
    unread 0
  `,
  'without keep-alive an idle connection lives for ever': [
    `${ACCEPTED}
    +1000000000 silence
    state established
  `,
    { config: { keepAliveMs: 0 } },
  ],
  '9293 3.8.3: unacknowledged data fails the connection after the user time-out': [
    `${ACCEPTED}
    write 10
    > P. 1:11(10) ack 1
    +200 > P. 1:11(10) ack 1
    +400 > P. 1:11(10) ack 1
    +800 > P. 1:11(10) ack 1
    +1600 > P. 1:11(10) ack 1
    +3200 > R. 11:11(0) ack 1
    failure timed-out
    memory 0
  `,
    { config: { userTimeoutMs: 4000 } },
  ],
  'an hour of silence before does not shorten the user time-out': [
    `${ACCEPTED}
    +3600000 write 10
    > P. 1:11(10) ack 1
    +200 > P. 1:11(10) ack 1
    +400 > P. 1:11(10) ack 1
    < . 1:1(0) ack 11 win 65535
    state established
  `,
    { config: { userTimeoutMs: 1000, keepAliveMs: 0 } },
  ],
};

export const closeTopics: Topics = {
  closing: closing,
  'resets and forged segments': resets,
  'dead and living peers': liveness,
};
