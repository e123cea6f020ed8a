/** Cases of the conformance suite: each is named by the section of the RFC that it is about. */
import { describe, it } from 'vitest';

/** A case: `RFC and section`, what must hold, and how it is shown. */
export type Case = readonly [rule: string, claim: string, show: () => void];

/** Runs a table of cases under one heading. */
export function conform(topic: string, cases: readonly Case[]): void {
  describe(topic, () => {
    for (const [rule, claim, show] of cases) it(`${rule}: ${claim}`, show);
  });
}
