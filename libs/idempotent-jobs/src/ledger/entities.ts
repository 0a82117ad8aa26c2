import { Column, Entity, PrimaryColumn } from 'typeorm';
import type { DeadLetterReason, RetryDecision } from '../operation/reasons.js';
import type { OperationStatus } from '../operation/status.js';
import type { ResultOmitted } from './record/kept-result.js';

/*
 * The ledger for reading with TypeORM. The library itself never goes through them. `synchronize: false` keeps TypeORM
 * from changing tables whose constraints it cannot express.
 */

/** A row of `job_outcomes`. */
@Entity({ name: 'job_outcomes', synchronize: false })
export class JobOutcomeEntity {
  @PrimaryColumn({ name: 'tenant_id', type: 'text' })
  tenantId!: string;

  @PrimaryColumn({ name: 'operation_key', type: 'text' })
  operationKey!: string;

  @Column({ type: 'text' })
  queue!: string;

  @Column({ name: 'job_name', type: 'text' })
  jobName!: string;

  @Column({ name: 'job_id', type: 'text' })
  jobId!: string;

  @Column({ type: 'text' })
  fingerprint!: string;

  @Column({ type: 'text' })
  status!: OperationStatus;

  @Column({ type: 'text', nullable: true })
  effect!: string | null;

  /** A bigint, which the driver reads as text. */
  @Column({ name: 'fencing_token', type: 'bigint' })
  fencingToken!: string;

  @Column({ name: 'run_id', type: 'text', nullable: true })
  runId!: string | null;

  @Column({ name: 'lease_expires_at', type: 'timestamptz', nullable: true })
  leaseExpiresAt!: Date | null;

  @Column({ type: 'integer' })
  attempts!: number;

  @Column({ type: 'integer' })
  failures!: number;

  /** Until when an attempt may follow one whose effect may have happened. `Infinity`: for ever. Null before the first claim. */
  @Column({ name: 'repeatable_until', type: 'timestamptz', nullable: true })
  repeatableUntil!: Date | number | null;

  @Column({ name: 'doubt_since', type: 'timestamptz', nullable: true })
  doubtSince!: Date | null;

  /** The last wait before another attempt, which `decorrelated` jitter grows from. */
  @Column({ name: 'delay_ms', type: 'double precision', nullable: true })
  delayMs!: number | null;

  /** When the last attempt that left a doubt had ended, or was found to have vanished. */
  @Column({ name: 'doubted_at', type: 'timestamptz', nullable: true })
  doubtedAt!: Date | null;

  /** In doubt: when the service is asked next whether the effect happened. */
  @Column({ name: 'reconcile_due_at', type: 'timestamptz', nullable: true })
  reconcileDueAt!: Date | null;

  /** The key of the operation whose handler runs it as a step. */
  @Column({ name: 'step_of', type: 'text', nullable: true })
  stepOf!: string | null;

  /** The name of that step. Its row's key is made so that no producer's key can be it. */
  @Column({ type: 'text', nullable: true })
  step!: string | null;

  /** The name of the retry policy that its producer asked for; null: the processor's. */
  @Column({ name: 'retry_policy', type: 'text', nullable: true })
  retryPolicy!: string | null;

  @Column({ name: 'deadline_at', type: 'timestamptz', nullable: true })
  deadlineAt!: Date | null;

  /** Whether its producer gave the deadline; one that follows from the time budget is reset by a redrive. */
  @Column({ name: 'has_own_deadline', type: 'boolean' })
  hasOwnDeadline!: boolean;

  @Column({ name: 'available_at', type: 'timestamptz', nullable: true })
  availableAt!: Date | null;

  @Column({ type: 'integer', nullable: true })
  priority!: number | null;

  @Column({ type: 'json', nullable: true })
  payload!: unknown;

  @Column({ type: 'json', nullable: true })
  result!: unknown;

  /** Why it completed without the result that its handler returned. */
  @Column({ name: 'result_omitted', type: 'text', nullable: true })
  resultOmitted!: ResultOmitted | null;

  /** Which dependency a fallback answered for, and why; null: the result is the real thing. */
  @Column({ type: 'text', nullable: true })
  degraded!: string | null;

  @Column({ type: 'json', nullable: true })
  error!: unknown;

  @Column({ name: 'dispatch_due_at', type: 'timestamptz', nullable: true })
  dispatchDueAt!: Date | null;

  /** How often it was put on its queue, since it was accepted or last brought back. */
  @Column({ type: 'integer' })
  dispatches!: number;

  /** What `traceContext` returned when it was enqueued. */
  @Column({ name: 'trace_context', type: 'json', nullable: true })
  traceContext!: unknown;

  /** The trace of its last attempt that did not complete, for the next one to link to. */
  @Column({ name: 'last_trace', type: 'text', nullable: true })
  lastTrace!: string | null;

  /** How often it was brought back. */
  @Column({ type: 'integer' })
  redrives!: number;

  /** The dead letter that brought it back last, or that it was made from by hand. */
  @Column({ name: 'redriven_from', type: 'uuid', nullable: true })
  redrivenFrom!: string | null;

  @Column({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;

  @Column({ name: 'started_at', type: 'timestamptz', nullable: true })
  startedAt!: Date | null;

  @Column({ name: 'settled_at', type: 'timestamptz', nullable: true })
  settledAt!: Date | null;

  @Column({ name: 'expires_at', type: 'timestamptz', nullable: true })
  expiresAt!: Date | null;
}

/** A row of `dead_letters`. */
@Entity({ name: 'dead_letters', synchronize: false })
export class DeadLetterEntity {
  @PrimaryColumn({ type: 'uuid' })
  id!: string;

  @Column({ name: 'tenant_id', type: 'text', nullable: true })
  tenantId!: string | null;

  @Column({ name: 'operation_key', type: 'text', nullable: true })
  operationKey!: string | null;

  /** Of a step's letter: the key of its operation, and the step's name. */
  @Column({ name: 'step_of', type: 'text', nullable: true })
  stepOf!: string | null;

  @Column({ type: 'text', nullable: true })
  step!: string | null;

  @Column({ type: 'text' })
  queue!: string;

  @Column({ name: 'job_name', type: 'text' })
  jobName!: string;

  @Column({ name: 'job_id', type: 'text' })
  jobId!: string;

  @Column({ type: 'text' })
  reason!: DeadLetterReason;

  @Column({ type: 'json', nullable: true })
  payload!: unknown;

  /** Of the request, as in {@link JobOutcomeEntity}; where there is no identity, of the job's time and data. */
  @Column({ type: 'text' })
  fingerprint!: string;

  @Column({ type: 'json', nullable: true })
  error!: unknown;

  /** Of the cause: the same for letters of one group. `DeadLetterService` calls it `fingerprint`. */
  @Column({ name: 'error_fingerprint', type: 'text' })
  errorFingerprint!: string;

  @Column({ type: 'integer' })
  attempts!: number;

  @Column({ type: 'integer' })
  failures!: number;

  /** A bigint, which the driver reads as text. */
  @Column({ name: 'fencing_token', type: 'bigint' })
  fencingToken!: string;

  @Column({ name: 'doubt_since', type: 'timestamptz', nullable: true })
  doubtSince!: Date | null;

  @Column({ name: 'run_id', type: 'text', nullable: true })
  runId!: string | null;

  @Column({ type: 'json', nullable: true })
  versions!: unknown;

  @Column({ name: 'trace_context', type: 'json', nullable: true })
  traceContext!: unknown;

  @Column({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;

  @Column({ name: 'dispatch_due_at', type: 'timestamptz', nullable: true })
  dispatchDueAt!: Date | null;

  /** How often it was put on the dead-letter queue. */
  @Column({ type: 'integer' })
  dispatches!: number;

  /** When the `@OnDeadLetter()` handlers had heard of it. */
  @Column({ name: 'notified_at', type: 'timestamptz', nullable: true })
  notifiedAt!: Date | null;

  /** The redrive of many that has taken it on. */
  @Column({ name: 'redrive_id', type: 'uuid', nullable: true })
  redriveId!: string | null;

  @Column({ name: 'resolved_at', type: 'timestamptz', nullable: true })
  resolvedAt!: Date | null;

  @Column({ type: 'text', nullable: true })
  resolution!: string | null;

  @Column({ type: 'text', nullable: true })
  actor!: string | null;

  @Column({ type: 'text', nullable: true })
  note!: string | null;
}

/** A row of `job_attempts`: an attempt that did not succeed. */
@Entity({ name: 'job_attempts', synchronize: false })
export class JobAttemptEntity {
  @PrimaryColumn({ name: 'tenant_id', type: 'text' })
  tenantId!: string;

  @PrimaryColumn({ name: 'operation_key', type: 'text' })
  operationKey!: string;

  /** A bigint, which the driver reads as text. */
  @PrimaryColumn({ name: 'fencing_token', type: 'bigint' })
  fencingToken!: string;

  @Column({ type: 'integer' })
  attempt!: number;

  @Column({ name: 'run_id', type: 'text', nullable: true })
  runId!: string | null;

  @Column({ name: 'started_at', type: 'timestamptz', nullable: true })
  startedAt!: Date | null;

  @Column({ name: 'ended_at', type: 'timestamptz' })
  endedAt!: Date;

  @PrimaryColumn({ type: 'text' })
  kind!: string;

  @Column({ type: 'text', nullable: true })
  reason!: string | null;

  @Column({ type: 'json', nullable: true })
  error!: unknown;

  /** A bigint, which the driver reads as text. */
  @Column({ name: 'delay_ms', type: 'bigint', nullable: true })
  delayMs!: string | null;

  /** Why the operation was tried again, given up, or left in doubt; null: its worker vanished, or the service was asked. */
  @Column({ type: 'text', nullable: true })
  decision!: RetryDecision | null;
}
