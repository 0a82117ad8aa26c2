import { Column, type ColumnType, Entity, PrimaryColumn } from 'typeorm';
import type { Effect } from '../operation/effect.js';
import type { Origin } from '../operation/origin.js';
import type { DeadLetterReason, DeadLetterResolution, RetryDecision } from '../operation/reasons.js';
import type { OperationStatus } from '../operation/status.js';
import type { ResultOmitted } from './record/recorded-result.js';

/*
 * The ledger as TypeORM entities, for applications that want to read it. The library itself never uses these classes.
 * TypeORM must not change the tables, whose constraints it cannot express, and writes no column.
 */

const TABLE = { synchronize: false } as const;

/** A column that is read and never written. */
function read(name: string, type: ColumnType): PropertyDecorator {
  return Column({ name, type, nullable: true, insert: false, update: false });
}

/** A row of `job_outcomes`. */
@Entity({ name: 'job_outcomes', ...TABLE })
export class JobOutcomeEntity {
  @PrimaryColumn({ name: 'tenant_id', type: 'text' })
  tenantId!: string;

  @PrimaryColumn({ name: 'operation_key', type: 'text' })
  operationKey!: string;

  /** What asks for it again: its job, the handler whose step it is, or the caller of a guarded call. */
  @read('origin', 'text')
  origin!: Origin;

  /** For a step: the key of the operation whose handler runs it, and the step's name. */
  @read('step_of', 'text')
  stepOf!: string | null;

  @read('step', 'text')
  step!: string | null;

  @read('queue', 'text')
  queue!: string;

  @read('job_name', 'text')
  jobName!: string;

  @read('job_id', 'text')
  jobId!: string;

  @read('status', 'text')
  status!: OperationStatus;

  @read('effect', 'text')
  effect!: Effect | null;

  @read('attempts', 'integer')
  attempts!: number;

  @read('failures', 'integer')
  failures!: number;

  /** Since when the effect may have happened without a record of it. */
  @read('doubt_since', 'timestamptz')
  doubtSince!: Date | null;

  /** For an operation in doubt: when the service is next asked whether the effect happened. */
  @read('reconcile_due_at', 'timestamptz')
  reconcileDueAt!: Date | null;

  @read('deadline_at', 'timestamptz')
  deadlineAt!: Date | null;

  @read('available_at', 'timestamptz')
  availableAt!: Date | null;

  /** As stored: encrypted, where encryption is on. */
  @read('result', 'json')
  result!: unknown;

  /** Why it completed without the result that its handler returned. */
  @read('result_omitted', 'text')
  resultOmitted!: ResultOmitted | null;

  /** Which dependency a fallback answered for, and why. Null means that the result is the real one. */
  @read('degraded', 'text')
  degraded!: string | null;

  @read('error', 'json')
  error!: unknown;

  /** How often it was redriven. */
  @read('redrives', 'integer')
  redrives!: number;

  @read('created_at', 'timestamptz')
  createdAt!: Date;

  @read('started_at', 'timestamptz')
  startedAt!: Date | null;

  @read('settled_at', 'timestamptz')
  settledAt!: Date | null;

  @read('expires_at', 'timestamptz')
  expiresAt!: Date | null;
}

/** A row of `dead_letters`. */
@Entity({ name: 'dead_letters', ...TABLE })
export class DeadLetterEntity {
  @PrimaryColumn({ type: 'uuid' })
  id!: string;

  @read('tenant_id', 'text')
  tenantId!: string | null;

  @read('operation_key', 'text')
  operationKey!: string | null;

  /** For the letter of a step: the key of its operation, and the step's name. */
  @read('step_of', 'text')
  stepOf!: string | null;

  @read('step', 'text')
  step!: string | null;

  @read('queue', 'text')
  queue!: string;

  @read('job_name', 'text')
  jobName!: string;

  @read('job_id', 'text')
  jobId!: string;

  @read('reason', 'text')
  reason!: DeadLetterReason;

  @read('error', 'json')
  error!: unknown;

  /** Equal for letters with the same cause. `DeadLetterService` calls it `fingerprint`. */
  @read('error_fingerprint', 'text')
  errorFingerprint!: string;

  @read('attempts', 'integer')
  attempts!: number;

  @read('created_at', 'timestamptz')
  createdAt!: Date;

  @read('resolved_at', 'timestamptz')
  resolvedAt!: Date | null;

  @read('resolution', 'text')
  resolution!: DeadLetterResolution | null;

  @read('actor', 'text')
  actor!: string | null;

  @read('note', 'text')
  note!: string | null;
}

/** A row of `job_attempts`: an attempt that did not succeed, or a question about one. */
@Entity({ name: 'job_attempts', ...TABLE })
export class JobAttemptEntity {
  @PrimaryColumn({ name: 'tenant_id', type: 'text' })
  tenantId!: string;

  @PrimaryColumn({ name: 'operation_key', type: 'text' })
  operationKey!: string;

  /** A bigint, which the driver returns as text. */
  @PrimaryColumn({ name: 'fencing_token', type: 'bigint' })
  fencingToken!: string;

  @PrimaryColumn({ type: 'text' })
  kind!: string;

  @read('attempt', 'integer')
  attempt!: number;

  @read('started_at', 'timestamptz')
  startedAt!: Date | null;

  @read('ended_at', 'timestamptz')
  endedAt!: Date;

  @read('reason', 'text')
  reason!: string | null;

  @read('error', 'json')
  error!: unknown;

  /** Why the operation was retried, given up, or left in doubt. Null when its worker vanished or the service was asked. */
  @read('decision', 'text')
  decision!: RetryDecision | null;
}
