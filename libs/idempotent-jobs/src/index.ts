// What most applications need, in reading order. Everything else is in a subpath: see `exports/`.

// 1 The module
export {
  getIdempotentQueueToken,
  IdempotentJobsModule,
  type IdempotentQueueAsyncOptions,
  type IdempotentQueueOptions,
  type UnnamedQueueOptions,
  type IdempotentQueueOptionsFactory,
  InjectIdempotentQueue,
} from './module/idempotent-jobs.module.js';
export type {
  IdempotentJobsAsyncOptions,
  IdempotentJobsOptions,
  IdempotentJobsOptionsFactory,
} from './module/idempotent-jobs.options.js';
export type { EncryptionOptions } from './ledger/encryption/key-ring.js';
export type { SigningOptions } from './producer/signer.js';
export { IDEMPOTENT_JOBS_MIGRATIONS, idempotentJobsMigrations } from './ledger/postgres/migrations.js';
export { selectBackendByConnection } from './bullmq/backend.js';
export { putBackOperation } from './worker/host/put-back-operation.js';

// 2 Processors
export {
  IdempotentProcessor,
  type ProcessorWorkerOptions,
} from './worker/host/idempotent-processor.decorator.js';
export type { FallsBack, Reconciles } from './worker/attempt/current-operation.js';
export type { ProcessorOverrides } from './worker/rules/processor-overrides.js';
export type { IdempotentProcessorOptions } from './worker/rules/processor.options.js';
export type { RetryOptions, RetryPolicies } from './worker/rules/retry.options.js';
export type { ReconcileOptions } from './worker/rules/reconcile.options.js';
export { IdempotencyInterceptor } from './worker/intake/idempotency.interceptor.js';
export type { Identify } from './worker/identify/identify.js';
export type { PayloadClass } from './worker/rules/validate-payload.js';
export {
  type CurrentOperation,
  currentOperation,
  type FollowUpOptions,
} from './worker/attempt/current-operation.js';
export type { ReconciledStep, StepRun } from './worker/attempt/current-operation.js';
export type { StepOptions } from './worker/rules/step.options.js';

// 3 What a handler may throw
export { InDoubtError, PermanentError, RetryLaterError, TransientError } from './operation/failure.js';

// 4 Producers
export {
  type EnqueuedOperation,
  IdempotentQueue,
  type OperationRequest,
} from './producer/idempotent-queue.js';
export type {
  EnqueueOptions,
  EnqueueTransaction,
  FlowNode,
  FlowNodeOptions,
  RequestOptions,
  TransactionClient,
} from './producer/enqueue.options.js';
export type { Schedule, ScheduleOptions } from './producer/schedule.js';
export type { AnyJobs, JobMap, JobName, OperationJob, PayloadOf, ResultOf } from './operation/job.js';

// 5 Tenants
export { TenantContext } from './tenancy/tenant-context.js';
export { TenantMiddleware } from './tenancy/tenant.middleware.js';

// 6 Outcomes
export {
  type Outcome,
  type OperationRef,
  OutcomeService,
  type ResolveOptions,
  type ResolveResult,
} from './outcome/outcome.service.js';
export type { HistoryEntry } from './outcome/history.js';
export { Reconciliation } from './operation/effect.js';
export type { OperationIdentity } from './operation/identity.js';
export type { OperationStatus } from './operation/status.js';
