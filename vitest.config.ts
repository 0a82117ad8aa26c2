import { defineConfig } from 'vitest/config';
import { SlowestFirst } from './test/support/slowest-first.js';

/** Nest injects constructor parameters by their emitted types, so the test transform has to emit them too. */
const decorators = { decorator: { legacy: true, emitDecoratorMetadata: true } };

/**
 * One process runs file after file: to load Nest, TypeORM and BullMQ for each of them takes longer than most of them do.
 * What a file changes of the process (a variable of the environment, a spy, a static logger) it has to put back.
 */
const isolate = false;

/** Specs that mock a module, or set the environment before it is loaded. */
const APART = [
  'apps/payments/src/lost-answers.spec.ts',
  'libs/idempotent-jobs/src/worker/attempt/with-retry.spec.ts',
];

/**
 * The end-to-end tests wait for leases, locks and clocks to run out: fewer would leave the machine idle. All projects have
 * the same number, so that the others run while those wait.
 */
const maxWorkers = 8;

const unit = {
  // Some go through thousands of cases; on a loaded machine that takes longer than the five seconds there are by default.
  testTimeout: 60_000,
  hookTimeout: 60_000,
  exclude: ['**/dist/**', '**/node_modules/**'],
  setupFiles: ['reflect-metadata'],
  maxWorkers,
};

export default defineConfig({
  test: {
    sequence: { sequencer: SlowestFirst },
    // A connection of BullMQ 5 that is closed while it is made rejects a promise that nobody holds.
    onUnhandledError: ({ message }) =>
      process.env['OLDER_PEERS'] === undefined || message !== 'Connection is closed.',
    projects: [
      {
        oxc: decorators,
        test: {
          ...unit,
          name: 'unit',
          include: ['libs/**/*.spec.ts', 'apps/**/*.spec.ts', 'test/ops/**/*.spec.ts'],
          exclude: [...unit.exclude, ...APART],
          isolate,
        },
      },
      {
        oxc: decorators,
        test: { ...unit, name: 'unit-apart', include: APART },
      },
      {
        oxc: decorators,
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.spec.ts'],
          setupFiles: ['reflect-metadata'],
          globalSetup: ['test/support/global-setup.ts'],
          // What is built is loaded as it is, and once, whichever file asks for it.
          server: { deps: { external: [/\/(libs|apps)\/[^/]+\/dist\//] } },
          // Longer than any wait within them: on a busy machine most of them wait.
          testTimeout: 120_000,
          hookTimeout: 60_000,
          isolate,
          maxWorkers,
        },
      },
    ],
  },
});
