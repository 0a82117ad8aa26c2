// What the library throws, and how it reads what others throw.
export type { Failure } from '../operation/failure.js';
export type { FailureKind } from '../operation/reasons.js';
export type { Classify } from '../resilience/classify/classify.js';
export type { BackoffOptions, Jitter } from '../resilience/backoff.js';
export {
  ConfigurationError,
  DeadLetterNotFoundError,
  DeadLetterRefusedError,
  IdempotentJobsError,
  InvalidIdentityError,
  InvalidPayloadError,
  OperationBusyError,
  OperationConflictError,
  OperationDeadError,
  OperationInDoubtError,
  OperationLockedError,
  OutcomeTimeoutError,
  RecordUnreadableError,
  TenantMismatchError,
  TenantMissingError,
  UsageError,
} from '../operation/errors.js';
