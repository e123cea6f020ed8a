import { defineConfig } from 'vitest/config';

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
            'test/{netstack,fsbridge,daemon,sim}/**/*.test.ts',
          ],
        },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['test/{e2e,interop,conformance}/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          // Two cores: files in parallel would measure each other, not the product.
          fileParallelism: false,
        },
      },
    ],
  },
});
