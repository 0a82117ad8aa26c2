import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as calls from './exports/calls.js';
import * as deadLetters from './exports/dead-letters.js';
import * as dependencies from './exports/dependencies.js';
import * as entities from './exports/entities.js';
import * as errors from './exports/errors.js';
import * as observe from './exports/observe.js';
import * as operate from './exports/operate.js';
import * as main from './index.js';

const SUBPATHS = { main, calls, deadLetters, dependencies, entities, errors, observe, operate };

/** All that a barrel exports, types included. */
function namesIn(file: string): string[] {
  const source = readFileSync(new URL(file, import.meta.url), 'utf8');
  return [...source.matchAll(/export (?:type )?\{([^}]*)\}/g)].flatMap(([, names = '']) =>
    names
      .split(',')
      .map((name) => name.replace('type ', '').trim())
      .filter((name) => name !== ''),
  );
}

describe('the public API', () => {
  it('exports these values and no other', () => {
    const names = Object.entries(SUBPATHS).map(([subpath, values]) => [
      subpath,
      Object.keys(values).toSorted(),
    ]);
    expect(Object.fromEntries(names)).toMatchInlineSnapshot(`
      {
        "calls": [
          "IdempotencyService",
          "IdempotentEffect",
          "fencedUpdate",
        ],
        "deadLetters": [
          "DEAD_LETTER_REASONS",
          "DeadLetterService",
          "OnDeadLetter",
        ],
        "dependencies": [
          "DependencyGuard",
          "DependencyRejectedError",
          "DependencyTimeoutError",
        ],
        "entities": [
          "DeadLetterEntity",
          "JobAttemptEntity",
          "JobOutcomeEntity",
        ],
        "errors": [
          "ConfigurationError",
          "DeadLetterNotFoundError",
          "DeadLetterRefusedError",
          "IdempotentJobsError",
          "InvalidIdentityError",
          "InvalidPayloadError",
          "OperationBusyError",
          "OperationConflictError",
          "OperationDeadError",
          "OperationInDoubtError",
          "OperationLockedError",
          "OutcomeTimeoutError",
          "RecordUnreadableError",
          "TenantMismatchError",
          "TenantMissingError",
          "UsageError",
        ],
        "main": [
          "IDEMPOTENT_JOBS_MIGRATIONS",
          "IdempotencyInterceptor",
          "IdempotentJobsModule",
          "IdempotentProcessor",
          "IdempotentQueue",
          "InDoubtError",
          "InjectIdempotentQueue",
          "OutcomeService",
          "PermanentError",
          "Reconciliation",
          "RetryLaterError",
          "TenantContext",
          "TenantMiddleware",
          "TransientError",
          "currentOperation",
          "getIdempotentQueueToken",
          "idempotentJobsMigrations",
          "putBackOperation",
          "selectBackendByConnection",
        ],
        "observe": [
          "Doctor",
          "IdempotentJobsHealthIndicator",
          "JOB_METRICS",
          "JobEvents",
        ],
        "operate": [
          "DispatchService",
          "RetentionService",
        ],
      }
    `);
  });

  it('has at most 70 names in the main entry', () => {
    expect(namesIn('./index.ts').length).toBeLessThanOrEqual(70);
  });

  it('has each name in one place', () => {
    const { exports } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
      exports: Record<string, { types?: string }>;
    };
    const barrels = Object.values(exports).flatMap(({ types }) =>
      types === undefined ? [] : [types.replace('./dist/', './').replace('.d.ts', '.ts')],
    );
    const names = barrels.flatMap(namesIn);
    expect(names.length).toBeGreaterThan(150);
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  });
});
