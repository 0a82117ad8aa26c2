import { setTimeout as pause } from 'node:timers/promises';
import type { EntityManager } from 'typeorm';
import type { Claim, VanishedAttempt } from '../../ledger/claim/claim.js';
import type { ClaimStore } from '../../ledger/claim/claim.store.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import type { Database } from '../../ledger/postgres/database.js';
import { HandlerTransaction } from '../../ledger/postgres/handler-transaction.js';
import { isConnectionTrouble } from '../../ledger/postgres/no-connection.js';
import {
  DEADLOCK_DETECTED,
  LOCK_NOT_AVAILABLE,
  SERIALIZATION_FAILURE,
  sqlStateOf,
} from '../../ledger/postgres/sqlstate.js';
import type { RecordedResult } from '../../ledger/record/kept-result.js';
import type { FailureRecord, OutcomeStore, Recorded } from '../../ledger/record/outcome.store.js';
import type { FollowUps } from './follow-ups.js';
import type { Completion, Ground, GroundAnswer } from './ground.js';
import { claimRequestOf, isCall, type OperationRun } from './operation-run.js';
import { TransactionLeftError } from './refusal-errors.js';

/** What transactional attempts need of their application. */
export interface TransactionServices {
  readonly claims: ClaimStore;
  readonly outcomes: OutcomeStore;
  readonly followUps: FollowUps;
  readonly database: Database;
}

/**
 * One transaction: claim, the handler's writes, outcome and follow-ups commit together or not at all. Two deliveries meet
 * on the operation's unique row; the second one waits a moment for it and is then put off.
 *
 * Killed anywhere before COMMIT, nothing of the attempt exists, not even its start; killed after it, all does. Where
 * the answer to COMMIT is lost, the redelivery's claim finds the row, or does not, and either is the truth.
 */
export class TransactionGround implements Ground {
  /** Undefined: there is none that could be used any more. */
  #transaction: HandlerTransaction | undefined;
  #isOpen = false;
  readonly isNearlyOver = false;
  readonly takesBack = true;

  constructor(
    private readonly run: OperationRun,
    private readonly services: TransactionServices,
  ) {}

  claim(): Promise<GroundAnswer> {
    return this.#claimWithin(0, () => this.run.handlerRun.signal);
  }

  async #claimWithin(patienceMs: number, signalOf: (() => AbortSignal) | undefined): Promise<GroundAnswer> {
    const giveUpAt = performance.now() + patienceMs;
    for (let tries = 1; ; tries += 1) {
      const answer = await this.#tryToClaim(signalOf);
      // Under repeatable read or serializable the transaction saw the row as it was before a rival: anew, it sees it as it is.
      const isWorthAnotherTry =
        answer === 'outdated' ? tries < MAX_TRIES : answer.kind === 'locked' && performance.now() < giveUpAt;
      if (!isWorthAnotherTry) return answer === 'outdated' ? LOCKED : answer;
      await pause(RETRY_MS);
    }
  }

  async #tryToClaim(signalOf: (() => AbortSignal) | undefined): Promise<GroundAnswer | 'outdated'> {
    const { run, services } = this;
    const { timeoutMs, leaseMs } = run.rules;
    const transaction = await HandlerTransaction.open(services.database, {
      tenantId: run.identified.tenantId,
      lockTimeoutMs: CLAIM_LOCK_TIMEOUT_MS,
      idleMs: timeoutMs + leaseMs,
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
    retentionMs: number,
  ): Promise<Completion> {
    const { outcomes, followUps: writer } = this.services;
    const transaction = this.#own;
    try {
      const recorded = await outcomes.completeOwn(transaction.connection, claim, result, retentionMs);
      if (recorded === 'lost') throw new TransactionLeftError();
      const tell = await writer.write(transaction.connection, followUps, this.run.runId);
      await transaction.commit();
      tell();
      return 'recorded';
    } catch (error) {
      // Whether COMMIT arrived is not known: the redelivery's claim finds out.
      if (isConnectionTrouble(error)) throw error;
      await this.leave();
      // Whatever isolation the application asked for, a rival was in the way; else the handler left a broken transaction
      // behind, or a deferred constraint failed at COMMIT. Nothing of the attempt is there.
      return isRivalry(error) ? { kind: 'conflicted' } : { kind: 'refused', error };
    }
  }

  /**
   * The failure is recorded without letting go of the row. Where there is no transaction to go back in (the handler ended
   * it, its connection is gone, or the handler was given up), the attempt has left no trace, and another claim is made.
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
    // Whatever was claimed is rolled back when the attempt leaves.
  }

  /** What has not been committed or rolled back by now must not be found open by the connection's next user. */
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

/** Postgres ended one of several transactions that could not all be; the handler had nothing to do with it. */
function isRivalry(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === SERIALIZATION_FAILURE || state === DEADLOCK_DETECTED;
}

const LOCKED: GroundAnswer = { kind: 'locked' };

/** Long enough for a rival that is about to commit, short enough not to hold up the worker's other jobs. */
const CLAIM_LOCK_TIMEOUT_MS = 200;
/** A job may wait for other handlers' transactions to end: put off, it would only come again. */
const PATIENCE_MS = 10_000;
/** A call says itself for how long it waits. */
const CALLERS_PATIENCE_MS = 250;
const RETRY_MS = 100;
/** Rivals that follow each other within milliseconds are few. */
const MAX_TRIES = 5;
/**
 * How long the failure is tried to be recorded. The attempt's own session is gone by then; another worker that holds the
 * row for longer is running the operation anew.
 */
const RECORD_PATIENCE_MS = 2_000;
