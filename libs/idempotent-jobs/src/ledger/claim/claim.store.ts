import { Injectable } from '@nestjs/common';
import { setTimeout as pause } from 'node:timers/promises';
import { identityKeyOf } from '../../operation/identity.js';
import { Coalescer } from '../postgres/coalescer.js';
import { Database, type Queryable } from '../postgres/database.js';
import {
  type ClaimAnswer,
  type ClaimRequest,
  type ClaimRow,
  FirstAttempts,
  type PeekAnswer,
  readAnswer,
  readPeek,
} from './claim.js';
import { resultBinding, Encryption } from '../encryption/encryption.js';
import { LOCK_NOT_AVAILABLE, sqlStateOf } from '../postgres/no-connection.js';
import { BEGIN_BUDGET, PEEK, IS_YOUNG, NOTE_UNRECORDED, KEEP_ROW } from './claim.statement.js';
import { Exchange } from './exchange.js';
import { asUnstorable } from './unstorable.js';

/**
 * Wins the right to run operations.
 *
 * A crash before the statement commits leaves nothing; a crash after it leaves a lease, which runs out by itself.
 */
@Injectable()
export class ClaimStore {
  readonly #peeks = new Map<string, Coalescer<ClaimRequest, ClaimRow>>();

  constructor(
    private readonly database: Database,
    private readonly exchange: Exchange,
    private readonly encryption: Encryption,
  ) {}

  /** Claims on the pool, in one statement with other claims and results that have the same rules. */
  claim(request: ClaimRequest): Promise<ClaimAnswer> {
    if (isOld(request)) return this.#claimOld(request);
    return this.#answerOf(
      request,
      () => this.exchange.claim(request),
      () => this.#claimOld(request),
    );
  }

  /** Claims inside of a transaction: if the transaction is rolled back, so is the claim. */
  async claimWithin(connection: Queryable, request: ClaimRequest): Promise<ClaimAnswer> {
    const ask = (isKnown: boolean): Promise<ClaimRow | FirstAttempts> =>
      this.exchange.claimOn(connection, request, isKnown);
    const claimOld = async (): Promise<ClaimAnswer> => {
      const row = await this.#rowState(connection, request);
      if (row !== 'there') return row === 'locked' ? LOCKED : { kind: 'expired' };
      return this.#answerOf(request, () => ask(true), neverOld);
    };
    return isOld(request) ? claimOld() : this.#answerOf(request, () => ask(false), claimOld);
  }

  /** Claims in a transaction that keeps the operation's row, if there is one, from being pruned between look-up and claim. */
  #claimOld(request: ClaimRequest): Promise<ClaimAnswer> {
    return this.database.inTransaction((connection) => this.claimWithin(connection, request), 'claim');
  }

  /** Whether the ledger still knows what became of the operation. */
  async #rowState(connection: Queryable, request: ClaimRequest): Promise<'there' | 'locked' | 'gone'> {
    const { tenantId, operationKey, rules, availableAt } = request;
    const [found] = await this.database.run<{ is_kept: boolean; is_there: boolean }>(
      KEEP_ROW.with({ tenantId, operationKey }),
      connection,
    );
    if (found?.is_there === true) return found.is_kept ? 'there' : 'locked';
    const [row] = await this.database.run<{ is_young: boolean }>(
      IS_YOUNG.with({ queue: rules.queue, availableMs: availableAt }),
      connection,
    );
    return row?.is_young === true ? 'there' : 'gone';
  }

  /**
   * Asks until there is an answer; `whenOld` answers for an operation whose row may be forgotten. `time` counts from 1.
   *
   * @throws RecordUnreadableError where the result of a completed operation cannot be read
   */
  #answerOf(
    request: ClaimRequest,
    ask: () => Promise<ClaimRow | FirstAttempts>,
    whenOld: () => Promise<ClaimAnswer>,
    time = 1,
  ): Promise<ClaimAnswer> {
    return ask().then((row) => {
      const answer = readAnswer(request, row);
      const isLast = time === MAX_TIMES;
      const askAgain = (): Promise<ClaimAnswer> => this.#answerOf(request, ask, whenOld, time + 1);
      if (answer.kind === 'locked' && !isLast) return pause(LOCKED_PAUSE_MS * time).then(askAgain);
      // Rivals keep rewriting the row each time, so one of them is running it. The caller comes back shortly.
      if (answer.kind === 'ask_again') return isLast ? LOCKED : askAgain();
      request.span?.follows(row instanceof FirstAttempts ? null : row.last_trace);
      if (answer.kind === 'old') return whenOld();
      return answer.kind === 'replay' ? this.#replay(request, answer) : answer;
    }, whenRefused);
  }

  /**
   * Looks at an operation without claiming it. Peeks of one queue that arrive together share a statement.
   *
   * @throws RecordUnreadableError where the result of a completed operation cannot be read
   */
  async peek(request: ClaimRequest): Promise<PeekAnswer> {
    const answer = readPeek(request, await this.#peekerFor(request.rules.queue).submit(request));
    return answer.kind === 'replay' ? this.#replay(request, answer) : answer;
  }

  /** Notes that a worker without the library may have run the operation, unless the operation has a row. */
  async noteUnrecorded(request: ClaimRequest): Promise<void> {
    await this.database.run(NOTE_UNRECORDED.with({ ...request.rules, ...request }));
  }

  /** Begins the time budget of an operation that is kept from its first attempt. */
  async beginBudget({ tenantId, operationKey }: ClaimRequest, budgetMs: number): Promise<void> {
    await this.database.run(BEGIN_BUDGET.with({ tenantId, operationKey, budgetMs }));
  }

  #replay(
    request: ClaimRequest,
    { resultText, degraded }: { readonly resultText: string | null; readonly degraded: string | undefined },
  ): Extract<ClaimAnswer, { kind: 'replay' }> {
    return { kind: 'replay', result: this.encryption.openText(resultText, resultBinding(request)), degraded };
  }

  #peekerFor(queue: string): Coalescer<ClaimRequest, ClaimRow> {
    let peeker = this.#peeks.get(queue);
    if (peeker === undefined) {
      const ask = (requests: ClaimRequest[]): Promise<ClaimRow[]> =>
        this.database.run<ClaimRow>(
          PEEK.with({
            queue,
            tenantId: requests.map((request) => request.tenantId),
            operationKey: requests.map((request) => request.operationKey),
            fingerprint: requests.map((request) => request.fingerprint),
            deadlineAt: requests.map((request) => request.deadline),
          }),
        );
      peeker = new Coalescer<ClaimRequest, ClaimRow>(ask, identityKeyOf);
      this.#peeks.set(queue, peeker);
    }
    return peeker;
  }
}

/**
 * Whether a job is so old that its row may be pruned at this very moment, which the claim statement alone could not tell.
 * A job younger than half of the retention is far from that; the watermark of what was forgotten is checked in any case.
 */
function isOld({ availableAt, rules }: ClaimRequest): boolean {
  return Date.now() - availableAt > rules.retentionMs / 2;
}

/**
 * Most transactions release a row at once, such as a dispatcher that marks a job as put. The pauses add up to 100 ms over
 * all of them; they hold up only this claim.
 */
const LOCKED_PAUSE_MS = 10;

/** Asking a second time shows the rival's row; more are needed only when rivals follow each other within microseconds. */
const MAX_TIMES = 5;

const LOCKED: ClaimAnswer = { kind: 'locked' };

/** For a claim whose row is known. */
function neverOld(): never {
  throw new Error('A claim of a known row was answered as old');
}

/** Asked alone: a row that is being inserted by a transaction that does not end counts as locked. */
function whenRefused(error: unknown): ClaimAnswer {
  if (sqlStateOf(error) === LOCK_NOT_AVAILABLE) return LOCKED;
  throw asUnstorable(error);
}
