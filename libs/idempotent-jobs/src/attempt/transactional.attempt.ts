import type { Claim } from '../claim/claim.js';
import type { ClaimStore } from '../claim/claim.store.js';
import { type Hold, holdBehind } from '../dependency/hold.js';
import type { Execution } from '../execute/attempt.js';
import { enterOperation } from '../execute/current-operation.js';
import { CALLS } from '../operation/calls.js';
import type { Database } from '../postgres/database.js';
import { HandlerTransaction } from '../postgres/handler-transaction.js';
import type { OutcomeStore } from '../record/outcome.store.js';
import { classify } from '../resilience/classify.js';
import type { Failure } from '../resilience/failure.js';
import type { AttemptBook } from './attempt-book.js';
import type { AttemptReporter } from './attempt.reporter.js';
import { attemptTimeoutMs } from './attempt-timeout.js';
import type { Ending } from './ending.js';
import type { Entrance } from './entrance.js';
import type { FollowUps } from './follow-ups.js';
import { type OperationFrame, openFrame } from './operation-frame.js';
import { setTimeout as pause } from 'node:timers/promises';
import { isConnectionTrouble } from '../postgres/no-connection.js';
import {
  DEADLOCK_DETECTED,
  LOCK_NOT_AVAILABLE,
  SERIALIZATION_FAILURE,
  sqlStateOf,
} from '../postgres/sqlstate.js';
import { keepResult } from './result-text.js';
import { TransactionLeftError, waitsForStep } from './refusal-errors.js';
import { claimRequestOf, handsBack, type RunContext } from './run-context.js';

/**
 * An attempt in one transaction: claim, the handler's writes, outcome and follow-ups commit together or not at all.
 * Two deliveries meet on the operation's unique row; the second waits a moment for it and is then put off.
 *
 * Killed anywhere before COMMIT, nothing of the attempt exists, not even its start; killed after it, all does. Where
 * the answer to COMMIT is lost, the redelivery's claim finds the row, or does not, and either is the truth.
 */
export class TransactionalAttempt {
  constructor(
    private readonly claims: ClaimStore,
    private readonly outcomes: OutcomeStore,
    private readonly book: AttemptBook,
    private readonly followUps: FollowUps,
    private readonly database: Database,
    private readonly reporter: AttemptReporter,
    private readonly onFollowUps: () => void,
  ) {}

  /** `entrance`: past the dependency of the processor; undefined: it has none. */
  run(
    context: RunContext,
    handler: () => Promise<unknown>,
    entrance: Entrance | undefined,
  ): Promise<Ending | RolledBack> {
    return this.#inTransaction(
      context,
      async (transaction, claim) => {
        const hold = entrance?.admit(context, claim);
        if (hold !== undefined) return this.#putBack(transaction, hold);
        const timeoutMs = attemptTimeoutMs(context.delivery.processor.timeoutMs, claim);
        await transaction.protect(timeoutMs);
        const startedAt = performance.now();
        this.reporter.started(context, claim);
        const frame = openFrame(context, claim, transaction.manager);
        enterOperation(frame.operation, {
          holdsTransaction: true,
          dependency: entrance?.dependency,
        });
        context.attempt.onAbandoned = () => transaction.refuse();
        const execution = await context.attempt.run(handler, timeoutMs);
        return this.#record(context, transaction, claim, execution, frame, startedAt, entrance);
      },
      { signalOf: () => context.attempt.signal },
    );
  }

  /** Fails an operation whose handler was never reached, or whose transaction is gone. */
  runNothing(
    context: RunContext,
    end: (claim: Claim, transaction: HandlerTransaction) => Promise<Ending>,
  ): Promise<Ending> {
    return this.#inTransaction(context, (transaction, claim) => end(claim, transaction));
  }

  async #inTransaction<E extends Ending | RolledBack>(
    context: RunContext,
    work: (transaction: HandlerTransaction, claim: Claim) => Promise<E>,
    { patienceMs = 0, signalOf }: { patienceMs?: number; signalOf?: () => AbortSignal } = {},
  ): Promise<E | Ending> {
    const giveUpAt = performance.now() + patienceMs;
    for (let tries = 1; ; tries += 1) {
      const ending = await this.#tryInTransaction(context, work, signalOf);
      if (ending === 'no_connection')
        return this.book.deferred(context, BUSY_MS, "busy: handlers' transactions have all connections");
      if (ending !== 'locked' && ending !== 'outdated') return ending;
      // Under repeatable read or serializable the transaction saw the row as it was before a rival: anew, it sees it as it is.
      const isWorthIt = ending === 'outdated' ? tries < MAX_TRIES : performance.now() < giveUpAt;
      if (!isWorthIt)
        return this.book.deferred(context, BUSY_MS, 'busy: another transaction is running the operation');
      await pause(RETRY_MS);
    }
  }

  async #tryInTransaction<E extends Ending | RolledBack>(
    context: RunContext,
    work: (transaction: HandlerTransaction, claim: Claim) => Promise<E>,
    signalOf: (() => AbortSignal) | undefined,
  ): Promise<E | Ending | 'locked' | 'outdated' | 'no_connection'> {
    const { timeoutMs, leaseMs } = context.delivery.processor;
    const transaction = await HandlerTransaction.open(this.database, {
      tenantId: context.identified.tenantId,
      lockTimeoutMs: CLAIM_LOCK_TIMEOUT_MS,
      idleMs: timeoutMs + leaseMs,
      patienceMs: context.asked.queue === CALLS ? CALLERS_PATIENCE_MS : PATIENCE_MS,
      signalOf,
    });
    if (transaction === undefined) return 'no_connection';
    let isClaimed = false;
    try {
      const answer = await this.claims.claimWithin(transaction.connection, claimRequestOf(context));
      if (answer.kind !== 'acquired') {
        await transaction.rollback();
        return answer.kind === 'locked' ? 'locked' : await this.book.refused(context, answer);
      }
      isClaimed = true;
      const refusal = await this.book.begin(context, answer.claim, transaction);
      return refusal ?? (await work(transaction, answer.claim));
    } catch (error) {
      const state = sqlStateOf(error);
      if (state === LOCK_NOT_AVAILABLE) return 'locked';
      if (state === SERIALIZATION_FAILURE && !isClaimed) return 'outdated';
      throw error;
    } finally {
      // Whatever has not been committed or rolled back by now must not be found open by the connection's next user.
      await transaction.destroy();
    }
  }

  async #record(
    context: RunContext,
    transaction: HandlerTransaction,
    claim: Claim,
    execution: Execution,
    frame: OperationFrame,
    startedAt: number,
    entrance: Entrance | undefined,
  ): Promise<Ending | RolledBack> {
    const { waitMs } = frame.steps;
    if (waitMs !== undefined && waitsForStep(execution)) {
      await transaction.rollback();
      return this.book.deferred(context, waitMs, 'waiting: one of its steps is not finished', 'waiting');
    }
    const hold = execution.kind === 'threw' ? holdBehind(execution.error) : undefined;
    if (hold !== undefined) return this.#putBack(transaction, hold);
    entrance?.heard(context, execution);
    switch (execution.kind) {
      case 'returned':
        return this.#complete(context, transaction, claim, execution.value, frame, startedAt);
      case 'threw':
        if (handsBack(context, execution)) {
          await transaction.rollback();
          return { kind: 'handed_back', error: execution.error };
        }
        return this.#fail(context, transaction, claim, execution.error, startedAt);
      case 'abandoned':
        return this.#abandon(context, transaction, claim, execution, startedAt);
      default:
        return execution satisfies never;
    }
  }

  async #complete(
    context: RunContext,
    transaction: HandlerTransaction,
    claim: Claim,
    value: unknown,
    { followUps, degraded }: OperationFrame,
    startedAt: number,
  ): Promise<Ending> {
    const result = { ...keepResult(value, context.delivery.processor.results), degraded };
    try {
      const recorded = await this.outcomes.completeOwn(
        transaction.connection,
        claim,
        result,
        context.delivery.processor.terms.retentionMs,
      );
      if (recorded === 'lost') throw new TransactionLeftError();
      const { workerId } = context.delivery;
      const tell = await this.followUps.write(transaction.connection, followUps, workerId);
      await transaction.commit();
      tell();
    } catch (error) {
      // Whether COMMIT arrived is not known: the redelivery's claim finds out.
      if (isConnectionTrouble(error)) throw error;
      // Whatever level the application asked for, a rival was in the way of the record, and none of the attempt is there.
      if (isRivalry(error)) return await this.#makeRoom(context, transaction);
      // The handler left a broken transaction behind, or a deferred constraint failed at COMMIT. All is rolled back.
      await transaction.destroy();
      return this.#failAfterRollback(
        context,
        claim,
        error,
        classify(error, context.delivery.processor.classify),
        startedAt,
      );
    }
    if (followUps.length > 0) this.onFollowUps();
    this.reporter.completed(context, claim, startedAt, result.problem, degraded);
    return { kind: 'completed', result: result.value, degraded: result.degraded };
  }

  async #makeRoom(context: RunContext, transaction: HandlerTransaction): Promise<Ending> {
    await transaction.destroy();
    return this.book.deferred(context, RIVAL_MS, 'busy: its transaction conflicted with another one');
  }

  /** A dependency did not let the handler through, or a call of it: nothing of the attempt remains. */
  async #putBack(transaction: HandlerTransaction, hold: Hold): Promise<RolledBack> {
    await transaction.rollback();
    return { kind: 'rolled_back', hold };
  }

  /** The writes are taken back and the failure recorded under the same claim, without letting go of the row. */
  async #fail(
    context: RunContext,
    transaction: HandlerTransaction,
    claim: Claim,
    error: unknown,
    startedAt: number,
  ): Promise<Ending> {
    try {
      await transaction.revert();
    } catch {
      // There is nothing to go back to: the handler ended the transaction, or the connection is gone.
      await transaction.destroy();
      const failure = classify(error, context.delivery.processor.classify);
      return this.#failAfterRollback(context, claim, error, failure, startedAt);
    }
    return this.book.fail(context, claim, error, undefined, startedAt, transaction);
  }

  /** The handler may still be writing: its connection is ended, and the failure recorded under a claim of its own. */
  async #abandon(
    context: RunContext,
    transaction: HandlerTransaction,
    claim: Claim,
    { why, error, wasStarted }: Extract<Execution, { kind: 'abandoned' }>,
    startedAt: number,
  ): Promise<Ending> {
    await transaction.destroy();
    this.reporter.abandoned(context, claim, why);
    if (why === 'shutdown' || !wasStarted) {
      return this.book.deferred(context, 1, `${why}: the attempt was rolled back`, why);
    }
    return this.#failAfterRollback(context, claim, error, { kind: 'in_doubt', reason: why }, startedAt);
  }

  /**
   * The attempt left no trace, so its failure is recorded under a claim of its own. Where that finds the attempt's claim, it
   * was committed, and with it whatever the handler had written: trying again would write it twice.
   */
  #failAfterRollback(
    context: RunContext,
    { token }: Claim,
    error: unknown,
    failure: Failure,
    startedAt: number,
  ): Promise<Ending> {
    return this.#inTransaction(
      context,
      (transaction, claim) =>
        claim.token === token
          ? this.book.fail(context, claim, new TransactionLeftError(), undefined, startedAt, transaction)
          : this.book.fail(context, claim, error, failure, startedAt, transaction),
      { patienceMs: RECORD_PATIENCE_MS },
    );
  }
}

/** A dependency did not let the attempt through, or a call of it: nothing of it remains, not even its claim. */
export interface RolledBack {
  readonly kind: 'rolled_back';
  readonly hold: Hold;
}

/** Postgres ended one of several transactions that could not all be; the handler had nothing to do with it. */
function isRivalry(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === SERIALIZATION_FAILURE || state === DEADLOCK_DETECTED;
}

/** Long enough for a rival that is about to commit, short enough not to hold up the worker's other jobs. */
const CLAIM_LOCK_TIMEOUT_MS = 200;
const BUSY_MS = 500;
/** A job may wait for other handlers' transactions to end: put off, it would only come again. */
const PATIENCE_MS = 10_000;
/** A call says itself for how long it waits. */
const CALLERS_PATIENCE_MS = 250;
const RETRY_MS = 100;
/** The rival has won, and is mostly through. */
const RIVAL_MS = 100;
/** Rivals that follow each other within milliseconds are few. */
const MAX_TRIES = 5;
/**
 * How long the failure is tried to be recorded. The attempt's own session is gone by then; another worker that holds the
 * row for longer is running the operation anew.
 */
const RECORD_PATIENCE_MS = 2_000;
