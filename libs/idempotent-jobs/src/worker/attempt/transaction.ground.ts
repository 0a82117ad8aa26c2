import { setTimeout as pause } from 'node:timers/promises';
import type { EntityManager } from 'typeorm';
import type { Claim, VanishedAttempt } from '../../ledger/claim/claim.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import { HandlerTransaction } from '../../ledger/postgres/handler-transaction.js';
import {
  isConnectionTrouble,
  DEADLOCK_DETECTED,
  LOCK_NOT_AVAILABLE,
  SERIALIZATION_FAILURE,
  sqlStateOf,
} from '../../ledger/postgres/no-connection.js';
import type { RecordedResult } from '../../ledger/record/recorded-result.js';
import type { Recorded } from '../../ledger/claim/exchange.js';
import type { FailureRecord } from '../../ledger/record/outcome.store.js';
import type { CompletionAnswer, Ground, GroundAnswer, GroundServices } from './ground.js';
import { claimRequestOf, isCall, type OperationRun } from './operation-run.js';
import { TransactionLeftError } from './refusal-errors.js';

/**
 * One transaction: claim, the handler's writes, outcome and follow-ups commit together or not at all. Two deliveries
 * meet on the operation's unique row: the second one waits a moment for it and is then deferred.
 *
 * If the process is killed before COMMIT, nothing of the attempt exists, not even its start; after COMMIT everything
 * does. If the answer to COMMIT is lost, the redelivery's claim finds the row or does not, and either is the truth.
 */
export class TransactionGround implements Ground {
  /** Undefined when no usable transaction is left. */
  #transaction: HandlerTransaction | undefined;
  #isOpen = false;
  readonly isNearlyOver = false;
  readonly takesBack = true;

  constructor(
    readonly run: OperationRun,
    private readonly services: GroundServices,
  ) {}

  claim(): Promise<GroundAnswer> {
    return this.#claimWithin(0, () => this.run.handlerRun.signal);
  }

  async #claimWithin(patienceMs: number, signalOf: (() => AbortSignal) | undefined): Promise<GroundAnswer> {
    const giveUpAt = performance.now() + patienceMs;
    for (let tries = 1; ; tries += 1) {
      const answer = await this.#tryToClaim(signalOf);
      // Under repeatable read or serializable the transaction saw the row as it was before a rival's commit. A new one
      // sees the current row.
      const isWorthAnotherTry =
        answer === 'outdated' ? tries < MAX_TRIES : answer.kind === 'locked' && performance.now() < giveUpAt;
      if (!isWorthAnotherTry) return answer === 'outdated' ? LOCKED : answer;
      await pause(RETRY_MS);
    }
  }

  async #tryToClaim(signalOf: (() => AbortSignal) | undefined): Promise<GroundAnswer | 'outdated'> {
    const { run, services } = this;
    const { timeoutMs, claim } = run.rules;
    const transaction = await HandlerTransaction.open(services.database, {
      tenantId: run.identified.tenantId,
      lockTimeoutMs: CLAIM_LOCK_TIMEOUT_MS,
      idleMs: timeoutMs + claim.leaseMs,
      patienceMs: isCall(run) ? CALLERS_PATIENCE_MS : PATIENCE_MS,
      signalOf,
    });
    if (transaction === undefined) return { kind: 'no_connection' };
    try {
      const answer = await services.claims.claimWithin(transaction.connection, claimRequestOf(run));
      if (answer.kind === 'acquired') this.#transaction = transaction;
      else await transaction.rollback();
      return answer;
    } catch (error) {
      await transaction.destroy();
      const state = sqlStateOf(error);
      if (state === LOCK_NOT_AVAILABLE) return LOCKED;
      if (state === SERIALIZATION_FAILURE) return 'outdated';
      throw error;
    }
  }

  takeOver(claim: Claim, vanished: VanishedAttempt): Promise<void> {
    return this.services.outcomes.takeOver(claim, vanished, this.#own.connection);
  }

  async open(timeoutMs: number): Promise<EntityManager> {
    const transaction = this.#own;
    await transaction.protect(timeoutMs);
    this.#isOpen = true;
    this.run.handlerRun.onAbandoned = () => transaction.refuse();
    return transaction.manager;
  }

  abandon(): Promise<void> {
    return this.leave();
  }

  async complete(
    claim: Claim,
    result: RecordedResult,
    followUps: readonly RequestedOperation[],
  ): Promise<CompletionAnswer> {
    const { outcomes, followUps: writer } = this.services;
    const transaction = this.#own;
    try {
      const rules = this.run.rules.claim;
      const recorded = await outcomes.completeOwn(transaction.connection, rules, claim, result);
      if (recorded === 'lost') throw new TransactionLeftError();
      const tell = await writer.write(transaction.connection, followUps, this.run.runId);
      await transaction.commit();
      tell();
      return 'recorded';
    } catch (error) {
      // It is unknown whether COMMIT arrived: the redelivery's claim finds out.
      if (isConnectionTrouble(error)) throw error;
      await this.leave();
      // Nothing of the attempt is left. Either another transaction was in the way, at whatever isolation the
      // application asked for; or the handler left a broken transaction behind, or a deferred constraint failed at
      // COMMIT.
      return isRivalry(error) ? { kind: 'conflicted' } : { kind: 'refused', error };
    }
  }

  /**
   * Rolls back to the claim, so that the failure is recorded while the row stays locked. Where no transaction is left
   * to roll back in (the handler ended it, its connection is gone, or the handler was given up), the attempt has left
   * no trace, and another claim is made.
   */
  async revert(claim: Claim): Promise<GroundAnswer> {
    if (this.#transaction !== undefined) {
      if (!this.#isOpen) return { kind: 'acquired', claim };
      try {
        await this.#transaction.revert();
        return { kind: 'acquired', claim };
      } catch {
        await this.leave();
      }
    }
    this.#isOpen = false;
    return this.#claimWithin(RECORD_PATIENCE_MS, undefined);
  }

  async fail(claim: Claim, record: FailureRecord): Promise<Recorded> {
    const transaction = this.#own;
    const recorded = await this.services.outcomes.fail(claim, record, transaction.connection);
    if (recorded === 'recorded') await transaction.commit();
    return recorded;
  }

  async release(): Promise<void> {
    await this.#transaction?.rollback();
    this.#transaction = undefined;
  }

  forgo(): void {
    // The claim is rolled back when the attempt leaves.
  }

  /** Ends what is still open: the connection's next user must not find an open transaction. */
  async leave(): Promise<void> {
    const transaction = this.#transaction;
    this.#transaction = undefined;
    await transaction?.destroy();
  }

  get #own(): HandlerTransaction {
    if (this.#transaction === undefined) throw new TransactionLeftError();
    return this.#transaction;
  }
}

/** Whether Postgres ended this transaction in favour of another one. The handler is not at fault. */
function isRivalry(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === SERIALIZATION_FAILURE || state === DEADLOCK_DETECTED;
}

const LOCKED: GroundAnswer = { kind: 'locked' };

/** Long enough for a rival that is about to commit, short enough not to block the worker's other jobs. */
const CLAIM_LOCK_TIMEOUT_MS = 200;
/** A job waits this long for other handlers' transactions to end: if it were deferred, it would only come again. */
const PATIENCE_MS = 10_000;
/** A call decides itself how long it waits in all. */
const CALLERS_PATIENCE_MS = 250;
const RETRY_MS = 100;
/** More rivals than this rarely follow each other within milliseconds. */
const MAX_TRIES = 5;
/**
 * How long recording the failure is retried. The attempt's own session is gone by then; a worker that holds the row for
 * longer is running the operation again.
 */
const RECORD_PATIENCE_MS = 2_000;
