import { MAX_FAILURE_CODE } from '../../operation/failure.js';
import { Injectable } from '@nestjs/common';
import type { Claim, ClaimRequest, ClaimRow, ClaimRules, VanishedAttempt } from '../claim/claim.js';
import type { DeadLetterReason, RetryDecision } from '../../operation/reasons.js';
import { cleanText, describeError } from '../../operation/thrown.js';
import type { OperationIdentity } from '../../operation/identity.js';
import { type Completion, Exchange, type Recorded } from '../claim/exchange.js';
import { OptimisticStore } from '../claim/optimistic.store.js';
import { Database, type Queryable } from '../postgres/database.js';
import type { Call } from '../postgres/statement.js';
import { payloadBinding, resultBinding, Encryption } from '../encryption/encryption.js';
import { errorFingerprint, VERSIONS } from './letter-evidence.js';
import type { RecordedResult } from './recorded-result.js';
import {
  APPLY_RECONCILED,
  DOUBT,
  FAIL,
  RELEASE,
  START,
  SURRENDER,
  TAKE_OVER,
  WAS_REPLACED,
} from './record.statements.js';

/** A failed attempt and what becomes of its operation. */
export interface FailureRecord {
  readonly status: 'retrying' | 'in_doubt' | 'dead';
  readonly error: unknown;
  readonly kind: string;
  readonly reason: string;
  /** Why the operation is tried again, given up, or left in doubt. Undefined when the service was asked about it. */
  readonly decision?: RetryDecision;
  /** Whether the effect may have happened. */
  readonly isDoubtful: boolean;
  /** The wait before the next attempt, or before the service is asked, in ms. Undefined when nothing follows. */
  readonly delayMs?: number;
  /** The reason of the dead letter. Set when the operation is given up or left in doubt. */
  readonly letter?: DeadLetterReason;
  /** For calls, which may never be requested again: after how many ms the row is forgotten. */
  readonly forgetAfterMs?: number;
  /** The letter's payload, as plain JSON text. */
  readonly payload?: string;
}

/**
 * Writes how attempts ended, each under its fencing token. The success of an optimistic attempt, which has none, is written
 * only over what is pending or waits for a retry, or where there is no row. `complete` and `fail` may be repeated after a
 * lost answer: they find the rows under their own token and answer as before. `release` and `doubt` answer `lost` then, and
 * the next claim does the rest.
 */
@Injectable()
export class OutcomeStore {
  constructor(
    private readonly database: Database,
    private readonly exchange: Exchange,
    private readonly optimistic: OptimisticStore,
    private readonly encryption: Encryption,
  ) {}

  /**
   * Records the result of an attempt.
   *
   * @throws RowLockedError while another transaction holds the operation's row: ask again
   */
  complete(rules: ClaimRules, claim: Claim, result: RecordedResult): Promise<Recorded> {
    return this.exchange.complete(this.#completionOf(rules, claim, result));
  }

  /** Records the result inside of a transaction. */
  completeOn(
    connection: Queryable,
    rules: ClaimRules,
    claim: Claim,
    result: RecordedResult,
  ): Promise<Recorded> {
    return this.exchange.completeOn(connection, this.#completionOf(rules, claim, result));
  }

  /** Records the result inside of the transaction that has claimed it; `lost` if that was committed or rolled back since. */
  completeOwn(
    connection: Queryable,
    rules: ClaimRules,
    claim: Claim,
    result: RecordedResult,
  ): Promise<Recorded> {
    return this.exchange.completeOwn(connection, this.#completionOf(rules, claim, result));
  }

  /**
   * Records the result of an attempt without a claim, unless another outcome was first: `lost`.
   *
   * @throws RowLockedError while another transaction holds the operation's row: ask again
   */
  completeFirst(
    request: ClaimRequest,
    claim: Claim,
    result: RecordedResult,
    connection?: Queryable,
  ): Promise<Recorded> {
    const completion = this.#completionOf(request.rules, claim, result);
    return this.optimistic.record({ ...completion, request, startedAt: claim.startedAt }, connection);
  }

  /** Records a failed attempt, the operation's next status and, if it is given up, the dead letter. */
  async fail(claim: Claim, record: FailureRecord, connection?: Queryable): Promise<Recorded> {
    const evidence = describeError(record.error);
    return this.#write(
      FAIL.with({
        tenantId: claim.tenantId,
        operationKey: claim.operationKey,
        token: claim.token,
        status: record.status,
        error: JSON.stringify(evidence),
        isDoubtful: record.isDoubtful,
        kind: record.kind,
        reason: cleanText(record.reason, MAX_FAILURE_CODE),
        delayMs: record.delayMs,
        decision: record.decision,
        forgetAfterMs: record.forgetAfterMs,
        letter: record.letter,
        payload: this.#encryptedPayload(claim, record.payload),
        versions: VERSIONS,
        errorFingerprint: record.letter && errorFingerprint(record.letter, evidence),
      }),
      connection,
    );
  }

  /**
   * Gives the claim back as if the attempt had not started. The operation cannot be claimed again before `waitMs` are
   * over; that of a call is forgotten after `forgetAfterMs`.
   */
  async release(
    { tenantId, operationKey, token }: Claim,
    isDoubtful: boolean,
    waitMs?: number,
    forgetAfterMs?: number,
  ): Promise<Recorded> {
    return this.#write(RELEASE.with({ tenantId, operationKey, token, isDoubtful, waitMs, forgetAfterMs }));
  }

  /**
   * Leaves an operation in doubt to a person, and writes its dead letter: its attempt vanished and must not be repeated,
   * its job has ended without it, or this process cannot ask its service.
   */
  async doubt(
    identity: OperationIdentity,
    seenToken: number,
    error: unknown,
    payload: string | undefined,
  ): Promise<Recorded> {
    const evidence = describeError(error);
    return this.#write(
      DOUBT.with({
        tenantId: identity.tenantId,
        operationKey: identity.operationKey,
        seenToken,
        error: JSON.stringify(evidence),
        payload: this.#encryptedPayload(identity, payload),
        versions: VERSIONS,
        errorFingerprint: errorFingerprint('in_doubt', evidence),
      }),
    );
  }

  /** Begins the next attempt of an operation in doubt, because the effect of the last one did not happen. */
  async start(
    claim: Claim,
    { repeatableMs, budgetMs }: Pick<ClaimRules, 'repeatableMs' | 'budgetMs'>,
  ): Promise<Claim | 'lost'> {
    const [row] = await this.database.run<ClaimRow>(START.with({ ...claim, repeatableMs, budgetMs }));
    if (row === undefined) return 'lost';
    return {
      ...claim,
      attempt: row.attempts,
      failures: row.failures,
      mustReconcile: false,
      startedAt: row.started_at as Date,
      isDoubtful: false,
      doubtAgeMs: undefined,
      tookOver: undefined,
      deadline: row.deadline_at ?? undefined,
      remainingMs: row.remaining_ms ?? undefined,
      repeatableMs: row.repeatable_ms,
    };
  }

  /** Completes an operation in doubt, because its effect happened. */
  async apply(
    connection: Queryable,
    rules: ClaimRules,
    claim: Claim,
    recorded: RecordedResult,
  ): Promise<Recorded> {
    const { degraded: _none, ...completion } = this.#completionOf(rules, claim, recorded);
    return this.#write(APPLY_RECONCILED.with(completion), connection);
  }

  /** Keeps the record of an attempt that was taken over. */
  async takeOver(
    { tenantId, operationKey }: OperationIdentity,
    vanished: VanishedAttempt,
    connection?: Queryable,
  ): Promise<void> {
    await this.database.run(TAKE_OVER.with({ tenantId, operationKey, ...vanished }), connection);
  }

  /** Records that the process of an attempt that was taken over is alive and has given the attempt up, late. */
  async surrender(claim: Claim): Promise<void> {
    await this.database.run(SURRENDER.with(claim));
  }

  /** Whether an attempt whose end was `lost` was replaced by another run, and not settled from elsewhere. */
  async wasReplaced({ tenantId, operationKey }: OperationIdentity, runId: string): Promise<boolean> {
    const [row] = await this.database.run<{ was_replaced: boolean }>(
      WAS_REPLACED.with({ tenantId, operationKey, runId }),
    );
    return row?.was_replaced === true;
  }

  async #write(call: Call, connection?: Queryable): Promise<Recorded> {
    const [row] = await this.database.run<{ is_recorded: boolean }>(call, connection);
    return row?.is_recorded === true ? 'recorded' : 'lost';
  }

  #completionOf(
    rules: ClaimRules,
    { tenantId, operationKey, token }: Claim,
    { text, omitted, degraded }: RecordedResult,
  ): Completion {
    const result =
      text === undefined ? null : this.encryption.encrypt(text, resultBinding({ tenantId, operationKey }));
    return {
      rules,
      tenantId,
      operationKey,
      token,
      result,
      resultOmitted: omitted ?? null,
      degraded: degraded ?? null,
      retentionMs: rules.retentionMs,
    };
  }

  #encryptedPayload(identity: OperationIdentity, payload: string | undefined): string | null {
    return payload === undefined ? null : this.encryption.encrypt(payload, payloadBinding(identity));
  }
}
