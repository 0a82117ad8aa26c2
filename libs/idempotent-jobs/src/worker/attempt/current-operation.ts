import type { Job } from 'bullmq';
import type { EntityManager } from 'typeorm';
import type { RequestOptions } from '../../producer/enqueue.options.js';
import type { IdempotentQueue } from '../../producer/idempotent-queue.js';
import type { Effect, Reconciliation } from '../../operation/effect.js';
import { UsageError } from '../../operation/errors.js';
import type { JobMap, JobName, PayloadOf } from '../../operation/job.js';
import type { StepOptions } from '../rules/step.options.js';
import { frames } from '../../tenancy/frames.js';
import type { RejectionCause } from '../../operation/reasons.js';

/** What a handler can know and do about the operation it is running for. */
export interface CurrentOperation {
  readonly tenantId: string;
  /**
   * The operation's key. A step has the key of its operation, "/" and its own name: people can read that, but no
   * operation can be looked up by it.
   */
  readonly operationKey: string;
  /** The name of the step. Undefined when the operation is no step. */
  readonly stepName: string | undefined;
  /** The queue of its job; the job's name follows. A guarded call has `(calls)` and `call`. */
  readonly queue: string;
  readonly jobName: string;
  /** This attempt's number, from 1. */
  readonly attempt: number;
  /** When it was started, by the database's clock. */
  readonly startedAt: Date;
  /**
   * Grows with every claim of the operation. Send it to stores that can refuse the writes of an outdated worker. 0 in a first
   * attempt without a claim (`optimistic`).
   */
  readonly fencingToken: number;
  /** The run id of this attempt, as the ledger records it: host, process and a running number. */
  readonly runId: string;
  /** The same on every attempt. Hand it to a service that deduplicates, e.g. as its `Idempotency-Key` header. */
  readonly idempotencyKey: string;
  /** Aborted when the library gives the attempt up: timeout, lost lease, cancellation, shutdown. */
  readonly signal: AbortSignal;
  /** When the total time budget ends, by the database's clock. Undefined when there is no budget. */
  readonly deadline: Date | undefined;
  /**
   * The trace context it was enqueued with: a carrier of `forRoot({ tracing })`, or what `traceContext` gave. Undefined
   * when there was none.
   */
  readonly trace: unknown;
  /**
   * The transaction that the outcome commits with. Only for `effect: 'transactional'`.
   *
   * @throws UsageError for every other effect
   */
  readonly transaction: EntityManager;
  /** The BullMQ job, with the validated payload as `data`. @throws UsageError in a call of `once()` */
  readonly job: Job;
  /**
   * Runs part of the handler as an operation of its own, under `<operationKey>/<name>`. Once a step has finished it is
   * not run again, and every later attempt gets its result. The result must be JSON. Steps may run side by side and
   * contain further steps. The handler's own effect must not be `unrepeatable`; use `natural` where all effects are in
   * steps.
   *
   * Rejects with what the step threw. Where the step is in doubt or under way elsewhere, it rejects with an error that
   * the handler must let pass: the operation then waits, without spending an attempt.
   *
   * @throws UsageError for a name that was used before in this attempt, and for invalid options
   */
  readonly step: <T>(name: string, work: StepRun<T> | ReconciledStep<T>, options?: StepOptions) => Promise<T>;
  /**
   * Marks the result that the operation will complete with as a stand-in, and says why in a few words, which
   * `Outcome.degraded` and metrics show. Fallbacks of dependencies call it by themselves. The first reason is kept.
   */
  readonly markDegraded: (by: string) => void;
  /**
   * Says that this attempt has had no effect, before the handler hands its job back by BullMQ's own means
   * (`job.moveToDelayed()` and `throw new DelayedError()`). Without it, an effect that must not be repeated is then in
   * doubt. A later call of a `DependencyGuard` cancels it. It means nothing when the handler ends in another way.
   */
  readonly markNotApplied: () => void;
  /** Notes that the attempt sends a guarded call. @internal */
  readonly noteCall: () => void;
  /** Whether an earlier attempt may have had its effect, so that another one would be a second effect. @internal */
  readonly mayHaveHappened: boolean;
  /** Whether the attempt has ended. What the handler still does then counts for nothing. @internal */
  readonly isOver: boolean;
  /** Whether the attempt may still begin something. If not, its signal is aborted. @internal */
  readonly mayBegin: () => Promise<boolean>;
  /**
   * Enqueues a follow-up that exists if and only if this operation completes: it is written in the transaction that
   * records the outcome. Nothing is enqueued if the attempt fails.
   */
  readonly enqueue: <M extends JobMap<M>, N extends JobName<M>>(
    queue: IdempotentQueue<M>,
    name: N,
    payload: PayloadOf<M, N>,
    options: FollowUpOptions,
  ) => void;
}

/** As {@link EnqueueOptions}, without a transaction: follow-ups always use the outcome's own. */
export type FollowUpOptions = Omit<RequestOptions, 'tenantId'>;

/**
 * The operation that the calling code runs for.
 *
 * @throws UsageError outside of an idempotent processor's handler, a step and a guarded call
 */
export function currentOperation(): CurrentOperation {
  const operation = surroundingOperation();
  if (operation === undefined) {
    throw new UsageError(
      'currentOperation() was called outside of an operation. Call it in the process() method of an @IdempotentProcessor(), in a guarded call, or in code that these await.',
    );
  }
  return operation;
}

/** As {@link currentOperation}, but undefined outside of any operation. */
export function surroundingOperation(): CurrentOperation | undefined {
  return frames.getStore()?.operation as CurrentOperation | undefined;
}

/**
 * Refuses a transaction inside of a transaction: connections for handlers' transactions are few, and attempts that hold
 * one while they wait for another could wait for each other for ever.
 *
 * @throws UsageError for effect `transactional` inside of a transactional operation
 */
export function assertNoTransactionAround(effect: Effect): void {
  if (effect !== 'transactional' || frames.getStore()?.holdsTransaction !== true) return;
  throw new UsageError(
    'A transactional step or call was made inside of a transactional operation, whose transaction it would not be part of. Write through the transaction that is open, or give it another effect.',
  );
}

/** Makes an operation the current one for the rest of its job's frame. */
export function enterOperation(
  operation: CurrentOperation,
  { holdsTransaction = false, dependency }: EnteredWith = {},
): void {
  const frame = frames.getStore();
  if (frame === undefined) return;
  frame.operation = operation;
  if (holdsTransaction) frame.holdsTransaction = true;
  if (dependency !== undefined) frame.dependencies = [dependency];
}

/** What surrounds a handler. */
export interface EnteredWith {
  readonly holdsTransaction?: boolean;
  /** The dependency that let the handler through. */
  readonly dependency?: object | undefined;
}

/** What a step does; `operation` is the step's own: its key, token, signal, follow-ups. */
export type StepRun<T> = (operation: CurrentOperation) => Promise<T> | T;

/** A step whose effect can be looked up. */
export interface ReconciledStep<T> {
  readonly run: StepRun<T>;
  /** Like a processor's: finds out whether the effect of the step's last attempt happened. */
  readonly reconcile: (operation: CurrentOperation) => Promise<Reconciliation> | Reconciliation;
}

/**
 * A processor that can find out whether the effect of an attempt happened. Effect `reconciled` needs it, `keyed` may
 * have it.
 *
 * ```ts
 * class ChargeProcessor extends WorkerHost implements Reconciles<Receipt> { … }
 * ```
 */
export interface Reconciles<Result = unknown> {
  /**
   * Asks the service whether the effect happened. Called under a lease and a timeout, on a schedule of questions
   * (`IdempotentProcessorOptions.reconcile`); costs no attempt. An error that it throws counts as `unknown()`.
   */
  reconcile(operation: CurrentOperation): Promise<Reconciliation<Result>> | Reconciliation<Result>;
}

/** A processor with a fallback for its dependency. */
export interface FallsBack<Result = unknown> {
  /**
   * Called in place of `process()` while the dependency lets nothing through. Its result completes the operation, which
   * is marked as degraded.
   */
  fallback(operation: CurrentOperation, reason: RejectionCause): Promise<Result> | Result;
}
