// The public API, in reading order.

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
export {
  IdempotentProcessor,
  type ProcessorClass,
  type ProcessorOptionsFor,
  type ProcessorWorkerOptions,
} from './intake/idempotent-processor.decorator.js';
export type { FallsBack, Reconciles } from './intake/processor-means.js';
export type { ProcessorOverrides } from './intake/processor-overrides.js';
export type { IdempotentProcessorOptions } from './intake/processor.options.js';
export type { RetryOptions, RetryPolicies } from './intake/retry.options.js';
export type { ReconcileOptions } from './reconcile/reconcile.options.js';
export { IdempotencyInterceptor } from './intake/idempotency.interceptor.js';
export type { Identify } from './intake/identify.js';
export type { PayloadClass } from './intake/validate-payload.js';
export type { Effect } from './operation/effect.js';
export {
  type CurrentOperation,
  currentOperation,
  type FollowUpOptions,
} from './execute/current-operation.js';
export type { ReconciledStep, StepOptions, StepRun } from './execute/step.js';

export { type FencedUpdate, fencedUpdate, type FenceExecutor } from './fencing/fenced-update.js';
export { IdempotencyService } from './call/idempotency.service.js';
export { IdempotentEffect, type IdempotentEffectOptions } from './call/idempotent-effect.decorator.js';
export type { CallOptions } from './call/call.options.js';
export {
  DependencyGuard,
  DependencyTimeoutError,
  type GuardedCallOptions,
} from './dependency/dependency-guard.js';
export { DependencyHeldError, type FallbackReason, type Hold, type HoldCause } from './dependency/hold.js';
export type {
  DependencyBreakerOptions,
  DependencyBudgetOptions,
  DependencyOptions,
} from './dependency/dependency.options.js';
export type { KeyedDependency, KeyedOperation } from './dependency/dependency-key.js';
export type { DependencyState } from './dependency/dependency.js';
export type { CircuitState } from './resilience/circuit-state.js';

// 3 What a handler may throw, and how errors are read
export {
  type Failure,
  type FailureKind,
  InDoubtError,
  PermanentError,
  RetryLaterError,
  TransientError,
} from './resilience/failure.js';
export type { Classify } from './resilience/classify.js';
export type { BackoffOptions, Jitter } from './resilience/backoff.js';

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
  WriteOptions,
} from './enqueue/enqueue.options.js';
export type { Schedule, ScheduleOptions } from './enqueue/schedule.js';
export type { FlowNode, FlowNodeOptions } from './enqueue/flow-node.js';
export type {
  AnyJobs,
  JobMap,
  JobName,
  JobType,
  OperationJob,
  PayloadOf,
  ResultOf,
} from './operation/job-map.js';

// 5 Tenants
export { TenantContext } from './tenancy/tenant-context.js';
export { TenantMiddleware } from './tenancy/tenant.middleware.js';

// 6 Outcomes and dead letters
export { type Outcome, type OperationRef, OutcomeService } from './outcome/outcome.service.js';
export type { SettleOptions, SettleResult } from './outcome/settler.js';
export type { ResultOmitted } from './record/kept-result.js';
export type { HistoryEntry } from './outcome/history.js';
export { DeadLetterService } from './dead-letter/dead-letter.service.js';
export type {
  DeadLetterPage,
  LetterResult,
  RedriveManyOptions,
  RedriveOptions,
  RedrivePlan,
} from './dead-letter/dead-letter.options.js';
export type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRef,
  DeadLetterResolution,
  DeadLetterWithPayload,
} from './dead-letter/dead-letter.js';
export type { OperationEdit } from './dead-letter/edited-redrive.js';
export type { Redrive, RedrivePace, RedriveProgress } from './dead-letter/redrive.js';
export {
  type Applied,
  applied,
  type EffectVerdict,
  type NotApplied,
  notApplied,
  type Reconciliation,
  type Unknown,
  unknown,
} from './reconcile/verdict.js';
export { RetentionService } from './retention/retention.service.js';
export type { Retention, RetentionOptions } from './retention/retention.options.js';
export type { Erased } from './retention/erasure.js';
export type { Pruned } from './retention/pruner.js';
export type { LedgerAction } from './operation/ledger-action.js';
export type { ErrorEvidence } from './record/error-evidence.js';
export type { OperationIdentity } from './operation/identity.js';
export type { OperationStatus } from './operation/status.js';
export {
  DispatchService,
  type RedispatchReport,
  type RedispatchUnsettledOptions,
} from './dispatch/dispatch.service.js';
export { OnDeadLetter } from './dead-letter/on-dead-letter.decorator.js';
export { DEAD_LETTER_REASONS, type DeadLetterMessage, type DeadLetterReason } from './dead-letter/letter.js';
export { DeadLetterEntity, JobAttemptEntity, JobOutcomeEntity } from './postgres/entities.js';

// 7 Seen from outside
export {
  IdempotentJobsHealthIndicator,
  type LedgerThresholds,
  type QueueThresholds,
} from './health/idempotent-jobs.health.js';
export { Doctor } from './doctor/doctor.js';
export type {
  DoctorAnswer,
  DoctorCode,
  DoctorFinding,
  DoctorReport,
  DoctorSeverity,
} from './doctor/doctor-report.js';
export {
  type DependencyEvent,
  type JobEvent,
  JobEvents,
  type JobEventSubject,
} from './observe/job-events.js';
export type { RetryReason } from './settle/decide.js';
export type { SpanAttributes, SpanStart, TraceCarrier, Tracing, TracingSpan } from './tracing/tracing.js';
export {
  type CounterMetric,
  type GaugeMetric,
  type HistogramMetric,
  JOB_METRICS,
  type JobMetric,
} from './metrics/catalogue.js';
export type {
  CounterSeries,
  GaugeReading,
  HistogramSeries,
  Labels,
  MetricsAdapter,
  OpenMetrics,
  ReadGauges,
} from './metrics/metrics.port.js';

// 8 Errors
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
} from './operation/errors.js';
