import { Injectable } from '@nestjs/common';
import type { Claim, ClaimRules, VanishedAttempt } from '../claim/claim.js';
import type { DeadLetterReason, RetryDecision } from '../../operation/reasons.js';
import { cleanText } from '../../operation/clean-text.js';
import { identityKeyOf, type OperationIdentity } from '../../operation/identity.js';
import { Coalescer } from '../postgres/coalescer.js';
import { toDate, toDateOrNone } from '../postgres/to-date.js';
import { Database, type Queryable } from '../postgres/database.js';
import { sparse } from '../postgres/statement.js';
import { payloadBinding, resultBinding } from '../encryption/binding.js';
import { Encryption } from '../encryption/encryption.js';
import { RowLockedError } from './row-locked.js';
import { describeError } from '../../operation/error-evidence.js';
import { errorFingerprint } from './error-fingerprint.js';
import type { RecordedResult, ResultOmitted } from './kept-result.js';
import {
  APPLY_RECONCILED,
  COMPLETE,
  DOUBT,
  FAIL,
  RELEASE,
  START,
  SURRENDER,
  TAKE_OVER,
  WAS_REPLACED,
} from './record.statements.js';
import { VERSIONS } from './versions.js';

/** Whether a write under a fencing token took effect. `lost`: the lease had gone to somebody else; nothing was written. */
export type Recorded = 'recorded' | 'lost';

/** A failed attempt and what becomes of its operation. */
export interface FailureRecord {
  readonly status: 'retrying' | 'in_doubt' | 'dead';
  readonly error: unknown;
  readonly kind: string;
  readonly reason: string;
  /** Why the operation is tried again, given up, or left in doubt; undefined: it was asked about. */
  readonly decision?: RetryDecision;
  /** Whether the effect may have happened. */
  readonly isDoubtful: boolean;
  /** The wait before the next attempt, or before the service is asked; undefined: there is none. */
  readonly delayMs?: number;
  /** Set when the operation is given up or in doubt: the letter's reason. */
  readonly letter?: DeadLetterReason;
  /** For calls, which nobody may ever ask for again. */
  readonly forgetAfterMs?: number;
  /** The letter's payload, as plain JSON text. */
  readonly payload?: string;
}

/** A reason may come from the application's own `classify`. */
const MAX_REASON = 200;

interface Completion extends OperationIdentity {
  readonly token: number;
  readonly result: string | null;
  readonly resultOmitted: ResultOmitted | null;
  readonly degraded: string | null;
  readonly retentionMs: number;
}

/**
 * Writes how attempts ended, each under its fencing token. `complete` and `fail` may be called again after their answer
 * was lost and then say what they would have said: the rows they find under their own token are their own. `release`
 * and `doubt` say `lost` then, which leaves the rest to the next claim.
 */
@Injectable()
export class OutcomeStore {
  readonly #completions: Coalescer<Completion, Recorded | RowLockedError>;

  constructor(
    private readonly database: Database,
    private readonly encryption: Encryption,
  ) {
    this.#completions = new Coalescer<Completion, Recorded | RowLockedError>(
      (completions) => this.#complete(completions),
      identityKeyOf,
    );
  }

  /**
   * Records the result, to be kept for `retentionMs`, together with whatever else is being completed.
   *
   * @throws RowLockedError while another transaction holds the operation's row: ask again
   */
  async complete(claim: Claim, result: RecordedResult, retentionMs: number): Promise<Recorded> {
    const recorded = await this.#completions.submit(this.#completionOf(claim, result, retentionMs));
    if (recorded instanceof RowLockedError) throw recorded;
    return recorded;
  }

  /** Records the result on a transaction's connection. */
  async completeWithin(
    connection: Queryable,
    claim: Claim,
    result: RecordedResult,
    retentionMs: number,
  ): Promise<Recorded> {
    const [recorded] = await this.#complete([this.#completionOf(claim, result, retentionMs)], connection);
    if (recorded instanceof RowLockedError) throw recorded;
    return recorded as Recorded;
  }

  /** Records the result in the transaction that claimed it. `lost`: the claim was committed or rolled back before. */
  async completeOwn(
    connection: Queryable,
    claim: Claim,
    result: RecordedResult,
    retentionMs: number,
  ): Promise<Recorded> {
    const completion = this.#completionOf(claim, result, retentionMs);
    return (await this.#complete([completion], connection, true))[0] as Recorded;
  }

  /** Records a failed attempt, the next status and, if given up, the dead letter. */
  async fail(claim: Claim, record: FailureRecord, connection?: Queryable): Promise<Recorded> {
    const evidence = describeError(record.error);
    const rows = await this.database.run<{ is_recorded: boolean }>(
      FAIL,
      [
        claim.tenantId,
        claim.operationKey,
        claim.token,
        record.status,
        JSON.stringify(evidence),
        record.isDoubtful,
        record.kind,
        cleanText(record.reason, MAX_REASON),
        record.delayMs ?? null,
        record.letter ?? null,
        this.#encryptedPayload(claim, record.payload),
        VERSIONS,
        record.letter === undefined ? null : errorFingerprint(record.letter, evidence),
        record.forgetAfterMs ?? null,
        record.decision ?? null,
      ],
      connection,
    );
    return rows[0]?.is_recorded === true ? 'recorded' : 'lost';
  }

  /** Gives the claim back as if the attempt had not been started; not to be claimed again before `waitMs` are over, and, a call's, forgotten after `forgetAfterMs`. */
  async release(
    claim: Claim,
    isDoubtful: boolean,
    waitMs?: number,
    forgetAfterMs?: number,
  ): Promise<Recorded> {
    const rows = await this.database.run(RELEASE, [
      claim.tenantId,
      claim.operationKey,
      claim.token,
      isDoubtful,
      waitMs ?? null,
      forgetAfterMs ?? null,
    ]);
    return rows.length > 0 ? 'recorded' : 'lost';
  }

  /** Parks a doubt that nobody here can ask about. */
  async doubt(
    identity: OperationIdentity,
    seenToken: number,
    error: unknown,
    payload: string | undefined,
  ): Promise<Recorded> {
    const evidence = describeError(error);
    const rows = await this.database.run(DOUBT, [
      identity.tenantId,
      identity.operationKey,
      seenToken,
      JSON.stringify(evidence),
      this.#encryptedPayload(identity, payload),
      VERSIONS,
      errorFingerprint('in_doubt', evidence),
    ]);
    return rows.length > 0 ? 'recorded' : 'lost';
  }

  /** Begins the next attempt of an operation that was asked about, because the last one's effect did not happen. */
  async start(
    claim: Claim,
    { repeatableMs, budgetMs }: Pick<ClaimRules, 'repeatableMs' | 'budgetMs'>,
  ): Promise<Claim | 'lost'> {
    const values = [claim.tenantId, claim.operationKey, claim.token, repeatableMs, budgetMs];
    const [row] = await this.database.run<StartedRow>(START, values);
    if (row === undefined) return 'lost';
    return {
      ...claim,
      attempt: row.attempts,
      failures: row.failures,
      mustReconcile: false,
      startedAt: toDate(row.started_at),
      isDoubtful: false,
      doubtAgeMs: undefined,
      tookOver: undefined,
      deadline: toDateOrNone(row.deadline_at),
      remainingMs: row.remaining_ms ?? undefined,
      repeatableMs: row.repeatable_ms,
    };
  }

  /** Completes an operation that was asked about, because its effect happened. */
  async apply(
    connection: Queryable,
    claim: Claim,
    recorded: RecordedResult,
    retentionMs: number,
  ): Promise<Recorded> {
    const { tenantId, operationKey, token, result, resultOmitted } = this.#completionOf(
      claim,
      recorded,
      retentionMs,
    );
    const values = [tenantId, operationKey, token, result, retentionMs, resultOmitted];
    const [row] = await this.database.run<{ is_recorded: boolean }>(APPLY_RECONCILED, values, connection);
    return row?.is_recorded === true ? 'recorded' : 'lost';
  }

  /** Keeps the record of an attempt that was taken over. */
  async takeOver(
    identity: OperationIdentity,
    vanished: VanishedAttempt,
    connection?: Queryable,
  ): Promise<void> {
    const values = [
      identity.tenantId,
      identity.operationKey,
      vanished.token,
      vanished.attempt,
      vanished.runId ?? null,
      vanished.startedAt ?? null,
    ];
    await this.database.run(TAKE_OVER, values, connection);
  }

  /** Says of an attempt that was taken over that its process lives: it gave the attempt up, late. */
  async surrender({ tenantId, operationKey, token, attempt, startedAt }: Claim): Promise<void> {
    await this.database.run(SURRENDER, [tenantId, operationKey, token, attempt, startedAt]);
  }

  /** Of an attempt whose end was `lost`: whether another one has taken its place, or nobody, but somebody said how it ended. */
  async wasReplaced({ tenantId, operationKey }: OperationIdentity, runId: string): Promise<boolean> {
    const [row] = await this.database.run<{ was_replaced: boolean }>(WAS_REPLACED, [
      tenantId,
      operationKey,
      runId,
    ]);
    return row?.was_replaced === true;
  }

  async #complete(
    completions: Completion[],
    connection?: Queryable,
    isOwn = false,
  ): Promise<(Recorded | RowLockedError)[]> {
    const rows = await this.database.run<{ is_recorded: boolean; is_locked: boolean }>(
      COMPLETE,
      [
        completions.map((completion) => completion.tenantId),
        completions.map((completion) => completion.operationKey),
        completions.map((completion) => completion.token),
        completions.map((completion) => completion.result),
        completions.map((completion) => completion.retentionMs),
        sparse(completions.map((completion) => completion.resultOmitted)),
        sparse(completions.map((completion) => completion.degraded)),
        isOwn,
      ],
      connection,
    );
    return rows.map((row) => {
      if (row.is_recorded) return 'recorded';
      return row.is_locked ? new RowLockedError() : 'lost';
    });
  }

  /** EncryptedValue once, however often it is written. */
  #completionOf(
    { tenantId, operationKey, token }: Claim,
    { text, omitted, degraded }: RecordedResult,
    retentionMs: number,
  ): Completion {
    const result =
      text === undefined ? null : this.encryption.encrypt(text, resultBinding({ tenantId, operationKey }));
    return {
      tenantId,
      operationKey,
      token,
      result,
      resultOmitted: omitted ?? null,
      degraded: degraded ?? null,
      retentionMs,
    };
  }

  #encryptedPayload(identity: OperationIdentity, payload: string | undefined): string | null {
    return payload === undefined ? null : this.encryption.encrypt(payload, payloadBinding(identity));
  }
}

interface StartedRow {
  readonly attempts: number;
  readonly failures: number;
  readonly started_at: Date;
  readonly deadline_at: Date | null;
  readonly remaining_ms: number | null;
  readonly repeatable_ms: number;
}
