// What most applications need, in reading order. All else is in a subpath: see `exports/`.

// 1 The module
export {
  getIdempotentQueueToken,
  IdempotentJobsModule,
  type IdempotentQueueAsyncOptions,
  type IdempotentQueueOptions,
  type IdempotentQueueSettings,
  type IdempotentQueueSettingsFactory,
  InjectIdempotentQueue,
} from './idempotent-jobs.module.js';
export type {
  IdempotentJobsAsyncOptions,
  IdempotentJobsOptions,
  IdempotentJobsOptionsFactory,
} from './idempotent-jobs.options.js';
export type { EncryptionOptions } from './sealing/key-ring.js';
export type { SigningOptions } from './signing/signing.options.js';
export { IDEMPOTENT_JOBS_MIGRATIONS } from './postgres/migrations.js';
export { useBackendOfConnection } from './bullmq/backend.js';
export { putBackOperation } from './intake/put-back-operation.js';

// 2 Processors
export { IdempotentProcessor, type ProcessorWorkerOptions } from './intake/idempotent-processor.decorator.js';
export type { FallsBack, Reconciles } from './intake/processor-means.js';
export type { ProcessorOverrides } from './intake/processor-overrides.js';
export type { IdempotentProcessorOptions } from './intake/processor.options.js';
export type { RetryOptions, RetryPolicies } from './intake/retry.options.js';
export type { ReconcileOptions } from './reconcile/reconcile.options.js';
export { IdempotencyInterceptor } from './intake/idempotency.interceptor.js';
export type { Identify } from './intake/identify.js';
export type { PayloadClass } from './intake/validate-payload.js';
export {
  type CurrentOperation,
  currentOperation,
  type FollowUpOptions,
} from './execute/current-operation.js';
export type { ReconciledStep, StepRun } from './execute/step.js';
export type { StepOptions } from './attempt/step-settings.js';

// 3 What a handler may throw
export { InDoubtError, PermanentError, RetryLaterError, TransientError } from './resilience/failure.js';

// 4 Producers
export {
  type EnqueuedOperation,
  IdempotentQueue,
  type OperationRequest,
} from './enqueue/idempotent-queue.js';
export type {
  EnqueueOptions,
  EnqueueTransaction,
  RequestOptions,
  TransactionClient,
} from './enqueue/enqueue.options.js';
export type { Schedule, ScheduleOptions } from './enqueue/schedule.js';
export type { FlowNode, FlowNodeOptions } from './enqueue/flow-node.js';
export type { AnyJobs, JobMap, JobName, OperationJob, PayloadOf, ResultOf } from './operation/job-map.js';

// 5 Tenants
export { TenantContext } from './tenancy/tenant-context.js';
export { TenantMiddleware } from './tenancy/tenant.middleware.js';

// 6 Outcomes
export { type Outcome, type OperationRef, OutcomeService } from './outcome/outcome.service.js';
export type { SettleOptions, SettleResult } from './outcome/settler.js';
export type { HistoryEntry } from './outcome/history.js';
export { applied, notApplied, type Reconciliation, unknown } from './reconcile/verdict.js';
export type { OperationIdentity } from './operation/identity.js';
export type { OperationStatus } from './operation/status.js';
