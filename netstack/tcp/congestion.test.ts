import { describe, expect, test } from 'vitest';
import { Congestion } from './congestion.ts';

const MSS = 1000;

/** Acknowledges whole windows, one per round trip, for a time. */
function run(cc: Congestion, fromMs: number, toMs: number, rttMs: number): void {
  for (let now = fromMs; now < toMs; now += rttMs) {
    for (let acked = 0, window = cc.cwnd; acked < window; acked += 2 * MSS)
      cc.acknowledged(now, 2 * MSS, rttMs);
  }
}

describe('initial window (RFC 6928)', () => {
  test.each([
    [500, 5000],
    [1460, 14_600],
    [4000, 14_600],
    [65_480, 130_960],
  ])('with segments of %i bytes it is %i', (mss, window) => {
    expect(new Congestion(mss).cwnd).toBe(window);
  });
});

describe('slow start (RFC 5681 section 3.1)', () => {
  test('grows by what was delivered, up to the threshold', () => {
    const cc = new Congestion(MSS);
    cc.acknowledged(0, 3000, 10);
    expect(cc.cwnd).toBe(13_000);
    cc.timedOut(20_000, true);
    expect([cc.cwnd, cc.ssthresh]).toEqual([MSS, 14_000]);
    cc.acknowledged(0, 5000, 10);
    expect(cc.cwnd).toBe(6000);
    cc.acknowledged(0, 8000, 10);
    expect(cc.cwnd).toBe(14_000);
  });

  test('a second time-out for the same segment does not lower the threshold again', () => {
    const cc = new Congestion(MSS);
    cc.timedOut(20_000, true);
    cc.timedOut(1000, false);
    expect(cc.ssthresh).toBe(14_000);
  });

  test('the threshold is at least two segments', () => {
    const cc = new Congestion(MSS);
    cc.timedOut(1000, true);
    expect(cc.ssthresh).toBe(2 * MSS);
  });
});

describe('CUBIC (RFC 9438)', () => {
  function afterLoss(window: number): Congestion {
    const cc = new Congestion(MSS);
    cc.acknowledged(0, window - cc.cwnd, 100);
    cc.enterRecovery(window);
    cc.exitRecovery();
    return cc;
  }

  test('4.6: a loss leaves 70 % of the window', () => {
    expect(afterLoss(1_000_000).cwnd).toBe(700_000);
  });

  test('4.2: the window is back where it was after K seconds, slowly around there, fast after', () => {
    const cc = afterLoss(1_000_000);
    // K = cbrt((1000 - 700) / 0.4) = 9.09 s
    run(cc, 0, 4500, 100);
    const half = cc.cwnd;
    run(cc, 4500, 9000, 100);
    const plateau = cc.cwnd;
    run(cc, 9000, 13_500, 100);
    const beyond = cc.cwnd;
    expect(plateau).toBeGreaterThan(985_000);
    expect(plateau).toBeLessThan(1_005_000);
    expect(half - 700_000).toBeGreaterThan(5 * (plateau - half) * 0.9);
    expect(beyond - plateau).toBeGreaterThan(30_000);
  });

  test('4.3: with a short round trip it grows like Reno, a segment or about half of one per round trip', () => {
    const cc = afterLoss(100_000);
    run(cc, 0, 20, 0.1);
    const grown = (cc.cwnd - 70_000) / MSS;
    expect(grown).toBeGreaterThan(80);
    expect(grown).toBeLessThan(210);
  });

  test('4.7: a second loss below the last maximum gives room to others (fast convergence)', () => {
    const cc = afterLoss(1_000_000);
    cc.enterRecovery(700_000);
    cc.exitRecovery();
    expect(cc.cwnd).toBeCloseTo(490_000);
    // The new maximum is 700 * 1.7 / 2 = 595, not 700: K = cbrt(105 / 0.4) = 6.4 s.
    run(cc, 0, 6400, 100);
    expect(cc.cwnd).toBeGreaterThan(580_000);
    expect(cc.cwnd).toBeLessThan(600_000);
  });
});

describe('proportional rate reduction (RFC 9937)', () => {
  test('sends seven tenths of what is delivered, and ends at the threshold', () => {
    const cc = new Congestion(MSS);
    cc.enterRecovery(20_000);
    let pipe = 19_000;
    let sent = 0;
    for (let ack = 0; ack < 19; ack++) {
      pipe -= MSS;
      cc.recoveryAck(MSS, pipe, false);
      while (cc.cwnd - pipe >= MSS) {
        cc.recoverySent(MSS);
        pipe += MSS;
        sent++;
      }
    }
    expect(sent).toBeGreaterThanOrEqual(13);
    expect(sent).toBeLessThanOrEqual(14);
    cc.exitRecovery();
    expect(cc.cwnd).toBe(14_000);
  });

  test('the first retransmission goes out whatever the pipe', () => {
    const cc = new Congestion(MSS);
    cc.enterRecovery(20_000);
    cc.recoveryAck(0, 20_000, false);
    expect(cc.cwnd).toBe(21_000);
  });
});

describe('undo (RFC 4015)', () => {
  test('gives back window and threshold', () => {
    const cc = new Congestion(MSS);
    const mark = { cwnd: 0, ssthresh: 0, wMax: 0 };
    cc.save(mark);
    cc.timedOut(10_000, true);
    cc.undo(mark);
    expect([cc.cwnd, cc.ssthresh]).toEqual([10_000, Number.POSITIVE_INFINITY]);
  });
});

test('RFC 5681 section 4.1: after idling the window is at most the initial one', () => {
  const cc = new Congestion(MSS);
  cc.acknowledged(0, 90_000, 10);
  cc.restartAfterIdle();
  expect(cc.cwnd).toBe(10_000);
});
