import type { Reporter, TestModule } from 'vitest/node';

/** Prints `N passed, N failed, N skipped` as the last line, for readers (people and CI) of plain logs. */
export default class ClosingLineReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 };
    for (const module of modules)
      for (const test of module.children.allTests()) counts[test.result().state]++;
    const failed =
      counts.failed + modules.filter((m) => m.state() === 'failed' && counts.failed === 0).length;
    process.on('exit', () => {
      console.log(`\n${counts.passed} passed, ${failed} failed, ${counts.skipped + counts.pending} skipped`);
    });
  }
}
