import { describe, expect, it } from 'vitest';
import * as api from './index.js';

describe('the public API', () => {
  it('exports these names and no other', () => {
    expect(Object.keys(api).toSorted()).toMatchInlineSnapshot(`
      [
        "ConfigurationError",
        "DEAD_LETTER_REASONS",
        "DeadLetterEntity",
        "DeadLetterNotFoundError",
        "DeadLetterRefusedError",
        "DeadLetterService",
        "DispatchService",
        "Doctor",
        "IDEMPOTENT_JOBS_MIGRATIONS",
        "IdempotencyInterceptor",
        "IdempotentJobsError",
        "IdempotentJobsHealthIndicator",
        "IdempotentJobsModule",
        "IdempotentProcessor",
        "IdempotentQueue",
        "InDoubtError",
        "InjectIdempotentQueue",
        "InvalidIdentityError",
        "InvalidPayloadError",
        "JobAttemptEntity",
        "JobEvents",
        "JobOutcomeEntity",
        "OnDeadLetter",
        "OperationConflictError",
        "OutcomeService",
        "OutcomeTimeoutError",
        "PermanentError",
        "RecordUnreadableError",
        "RetentionService",
        "RetryLaterError",
        "TenantContext",
        "TenantMiddleware",
        "TenantMismatchError",
        "TenantMissingError",
        "TransientError",
        "UsageError",
        "applied",
        "currentOperation",
        "getIdempotentQueueToken",
        "notApplied",
        "useBackendOfConnection",
      ]
    `);
  });
});
