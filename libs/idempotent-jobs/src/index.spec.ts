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
        "IdempotencyService",
        "IdempotentEffect",
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
        "OperationBusyError",
        "OperationConflictError",
        "OperationDeadError",
        "OperationInDoubtError",
        "OutcomeService",
        "OutcomeTimeoutError",
        "PermanentError",
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
        "fencedUpdate",
        "getIdempotentQueueToken",
        "notApplied",
        "unknown",
        "useBackendOfConnection",
      ]
    `);
  });
});
