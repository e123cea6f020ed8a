import { defineConfig } from 'vitest/config';

/** Two cores: tests that start daemons and namespaces in parallel would measure each other, not the product. */
const serial = { fileParallelism: false, testTimeout: 60_000, hookTimeout: 120_000 };

export default defineConfig({
  resolve: { conditions: ['source'] },
  ssr: { resolve: { conditions: ['source'] } },
  test: {
    reporters: ['default', './tools/closing-line-reporter.ts'],
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: [
            '{common,netstack,fsbridge,daemon,tools}/**/*.test.ts',
            'test/{netstack,fsbridge,daemon,sim,conformance}/**/*.test.ts',
          ],
          sequence: { groupOrder: 0 },
          testTimeout: 30_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          sequence: { groupOrder: 1 },
          ...serial,
        },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/support/e2e/shared-daemon.ts'],
          sequence: { groupOrder: 2 },
          ...serial,
        },
      },
    ],
  },
});
