import type { Job } from 'bullmq';
import type { EntityManager } from 'typeorm';
import type { RequestOptions } from '../../producer/enqueue.options.js';
import type { IdempotentQueue } from '../../producer/idempotent-queue.js';
import type { Effect } from '../../operation/effect.js';
import { UsageError } from '../../operation/errors.js';
import type { JobMap, JobName, PayloadOf } from '../../operation/job-map.js';
import type { ReconciledStep, StepRun } from './step.js';
import type { StepOptions } from '../rules/step.options.js';
import { frames } from '../../tenancy/frames.js';

/** What a handler can know and do about the operation it is running for. */
export interface CurrentOperation {
  readonly tenantId: string;
  /** Of a step: its operation's key and its own name, with "/" between, to be read; nothing is looked up by it. */
  readonly operationKey: string;
  /** The name of the step that it is; undefined: it is none. */
  readonly stepName: string | undefined;
  /** The queue of its job, and the job's name. For a guarded call: `(calls)` and `call`. */
  readonly queue: string;
  readonly jobName: string;
  /** This attempt's number, from 1. */
  readonly attempt: number;
  /** When it was started, by the database's clock. */
  readonly startedAt: Date;
  /** Grows with every claim of the operation. Send it to stores that can refuse writes of an outdated worker. */
  readonly fencingToken: number;
  /** Names this attempt's run, as the ledger records it: host, process and a running number. */
  readonly runId: string;
  /** The same on every attempt: hand it to a service that deduplicates, e.g. as its `Idempotency-Key` header. */
  readonly idempotencyKey: string;
  /** Aborted when the attempt is over for the library: timeout, lost lease, cancellation, shutdown. */
  readonly signal: AbortSignal;
  /** When the total time budget ends, by the database's clock; undefined: no budget. */
  readonly deadline: Date | undefined;
  /** The trace context it was enqueued with: a carrier of `forRoot({ tracing })`, or what `traceContext` gave; undefined: none. */
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
   * Runs part of the handler as an operation of its own, under `<operationKey>/<name>`: once it has finished it is not
   * run again, and every later attempt gets its result. The result must be JSON. Steps may run side by side and hold
   * steps of their own. For handlers whose own effect is not `unrepeatable`; `natural`, where all effects are in steps.
   *
   * Rejects with what the step threw; or, where the step is in doubt or under way elsewhere, with an error that the
   * handler lets pass: the operation then waits, without spending an attempt.
   *
   * @throws UsageError for a name that was used before in this attempt, and for options that make no sense
   */
  readonly step: <T>(name: string, work: StepRun<T> | ReconciledStep<T>, options?: StepOptions) => Promise<T>;
  /**
   * Says that what the operation will complete with is a stand-in, and why, in few words; as `Outcome.degraded` and
   * metrics tell. Fallbacks of dependencies say it by themselves. The first reason stays.
   */
  readonly markDegraded: (by: string) => void;
  /**
   * Says that this attempt has had no effect, before the handler hands its job back by BullMQ's own means
   * (`job.moveToDelayed()` and `throw new DelayedError()`). Without it, what must not be repeated is in doubt then. A
   * call of a `DependencyGuard` after it takes it back. To any other end of the handler it says nothing.
   */
  readonly markNotApplied: () => void;
  /** A guarded call of the attempt is being sent. @internal */
  readonly noteCall: () => void;
  /** Whether an earlier attempt may have had its effect, and another one would be a second. @internal */
  readonly mayHaveHappened: boolean;
  /** Whether its attempt has ended, so that what still runs is nobody's. @internal */
  readonly isOver: boolean;
  /** Whether something may still be begun in it; if not, its signal is aborted. @internal */
  readonly mayBegin: () => Promise<boolean>;
  /**
   * Enqueues a follow-up that exists if and only if this operation completes: it is written in the transaction that
   * records the outcome. Nothing happens if the attempt fails.
   */
  readonly enqueue: <M extends JobMap<M>, N extends JobName<M>>(
    queue: IdempotentQueue<M>,
    name: N,
    payload: PayloadOf<M, N>,
    options: FollowUpOptions,
  ) => void;
}

/** As {@link EnqueueOptions}; the outcome's own transaction is the only one there can be. */
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

/** As {@link currentOperation}; undefined outside of any. */
export function surroundingOperation(): CurrentOperation | undefined {
  return frames.getStore()?.operation as CurrentOperation | undefined;
}

/**
 * Connections for handlers' transactions are few: those that hold one and wait for another one would wait for each other.
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

/** What a handler has around it. */
export interface EnteredWith {
  readonly holdsTransaction?: boolean;
  /** The dependency that let it through. */
  readonly dependency?: object | undefined;
}
