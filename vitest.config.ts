import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';

/** Starting daemons, guests and namespaces takes its time on a busy machine; a test that waits for an event ends long before. */
const patient = { testTimeout: 120_000, hookTimeout: 120_000 };

/**
 * Namespaces, mounts and daemons need root. Without it those projects are left out, and said to be, instead of failing one by one;
 * where nothing may be skipped they run and fail.
 */
const privileged = process.getuid?.() === 0 || process.env.DRYDOCK_TEST_ALL === '1';
if (!privileged) console.warn('skipped: the projects interop and e2e need root: run with sudo');

const privilegedProjects: TestProjectInlineConfiguration[] = [
  {
    extends: true,
    test: {
      name: 'interop',
      include: ['test/interop/**/*.test.ts'],
      sequence: { groupOrder: 1 },
      // Each file has namespaces, folders and cgroups of its own: two at a time keep both of CI's cores busy.
      maxWorkers: 2,
      ...patient,
    },
  },
  {
    extends: true,
    test: {
      name: 'e2e',
      include: ['test/e2e/**/*.test.ts'],
      globalSetup: ['test/support/e2e/shared-daemon.ts'],
      sequence: { groupOrder: 2 },
      // Each worker has a shared daemon of its own: most tests wait for programs, not for the processor.
      maxWorkers: 3,
      ...patient,
    },
  },
];

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
      ...(privileged ? privilegedProjects : []),
    ],
  },
});
