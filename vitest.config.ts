import { defineConfig } from 'vitest/config';

/** Nest injects constructor parameters by their emitted types, so the test transform has to emit them too. */
const decorators = { decorator: { legacy: true, emitDecoratorMetadata: true } };

export default defineConfig({
  test: {
    projects: [
      {
        oxc: decorators,
        test: {
          name: 'unit',
          // Some go through thousands of cases; on a loaded machine that takes longer than the five seconds there are by default.
          testTimeout: 30_000,
          include: ['libs/**/*.spec.ts', 'apps/**/*.spec.ts', 'test/support/**/*.spec.ts'],
          exclude: ['**/dist/**', '**/node_modules/**'],
          setupFiles: ['reflect-metadata'],
        },
      },
      {
        oxc: decorators,
        test: {
          name: 'e2e',
          sequence: { groupOrder: 1 },
          include: ['test/e2e/**/*.spec.ts'],
          setupFiles: ['reflect-metadata'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // Most of the time they wait for leases, locks and clocks to run out.
          maxWorkers: 3,
        },
      },
    ],
  },
});
