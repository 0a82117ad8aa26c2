import { Injectable } from '@nestjs/common';
import type { OperationIdentity } from '../../operation/identity.js';
import { Database, type Queryable } from '../postgres/database.js';
import { QUERY_TIMEOUT_MS } from '../postgres/ledger-pool.js';
import { sparse, statement } from '../postgres/statement.js';
import { CoalescersByRules } from './coalescers-by-rules.js';
import { type ClaimRequest, type ClaimRow, type ClaimRules, FirstAttempts } from './claim.js';
import { CLAIM, CLAIM_ANSWER, CLAIMING } from './claim.statement.js';
import { COMPLETE, COMPLETE_OWN, COMPLETING } from './complete.statement.js';
import { LedgerClock } from './ledger-clock.js';

/**
 * Claims operations and completes others: see {@link CLAIMING} and {@link COMPLETING}. No operation may be among both. Each
 * row has the list of what was not completed, and the first one is read.
 */
const EXCHANGE = statement(
  'exchange',
  `WITH ${CLAIMING}, ${COMPLETING}
SELECT ${CLAIM_ANSWER}, (SELECT json_agg(u) FROM unwritten u) AS unwritten
FROM patience p LEFT JOIN answered r ON true`,
  'record',
);

/** The result of an attempt, to be recorded. Its text is as it is stored. */
export interface Completion extends OperationIdentity {
  readonly rules: ClaimRules;
  readonly token: number;
  readonly result: string | null;
  readonly resultOmitted: string | null;
  readonly degraded: string | null;
  readonly retentionMs: number;
}

/**
 * Whether a write under a fencing token took effect. `lost` means that another worker had the lease; nothing was written.
 */
export type Recorded = 'recorded' | 'lost';

/**
 * Hands finished operations to the ledger and takes new ones from it. What attempts with the same rules want at one time goes
 * in one statement, whether they begin or have succeeded: a flood costs half of the statements, and of the commits, that it
 * would cost to claim and to complete apart.
 */
@Injectable()
export class Exchange {
  readonly #moves = new CoalescersByRules<Move, Answer>((rules, moves) => this.#ask(rules, moves));
  readonly #clock = new LedgerClock();

  constructor(private readonly database: Database) {}

  /** Claims an operation. */
  claim(request: ClaimRequest): Promise<ClaimRow | FirstAttempts> {
    return this.#moves.submit(request.rules, request) as Promise<ClaimRow | FirstAttempts>;
  }

  /** Claims an operation inside of a transaction. `isKnown`: whether its row was looked up before. */
  async claimOn(
    connection: Queryable,
    request: ClaimRequest,
    isKnown: boolean,
  ): Promise<ClaimRow | FirstAttempts> {
    // A transaction that its caller no longer ends is rolled back.
    const input = claimInput(request.rules, [request], { isKnown, waitedForUntilMs: null });
    const rows = await this.database.run<AnswerRow>(CLAIM.with(input), connection);
    return this.#readClaims(rows, 1)[0] as ClaimRow | FirstAttempts;
  }

  /**
   * Completes an operation.
   *
   * @throws RowLockedError while another transaction holds its row: ask again
   */
  complete(completion: Completion): Promise<Recorded> {
    return this.#moves.submit(completion.rules, completion) as Promise<Recorded>;
  }

  /**
   * Completes an operation inside of a transaction.
   *
   * @throws RowLockedError while another transaction holds its row
   */
  async completeOn(connection: Queryable, completion: Completion): Promise<Recorded> {
    const rows = await this.database.run<Unwritten>(COMPLETE.with(completionInput([completion])), connection);
    const [recorded] = readCompletions(rows, 1);
    if (recorded instanceof Error) throw recorded;
    return recorded as Recorded;
  }

  /** Completes an operation that this transaction has claimed; `lost` if the claim was committed or rolled back since. */
  async completeOwn(connection: Queryable, completion: Completion): Promise<Recorded> {
    const { tenantId, operationKey, token, result, resultOmitted, degraded, retentionMs } = completion;
    const input = { tenantId, operationKey, token, result, resultOmitted, degraded, retentionMs };
    const [completed] = await this.database.run(COMPLETE_OWN.with(input), connection);
    return completed === undefined ? 'lost' : 'recorded';
  }

  /**
   * Until when a claim that was sent by now may still be won, in ms since 1970 by the database's clock. Undefined when
   * that clock is not known.
   */
  get possibleUntil(): number | undefined {
    return this.#clock.in(QUERY_TIMEOUT_MS) ?? undefined;
  }

  async #ask(rules: ClaimRules, moves: readonly Move[]): Promise<Answer[]> {
    const claims: ClaimRequest[] = [];
    const completions: Completion[] = [];
    for (const move of moves) {
      if (isClaim(move)) claims.push(move);
      else completions.push(move);
    }
    // Made once there is a connection, so that the time is right.
    const asked = () =>
      claimInput(rules, claims, { isKnown: false, waitedForUntilMs: this.#clock.in(QUERY_TIMEOUT_MS) });
    const ended = completionInput(completions);
    if (claims.length === 0) {
      const unwritten = await this.database.run<Unwritten>(COMPLETE.with(ended));
      return readCompletions(unwritten, completions.length);
    }
    if (completions.length === 0)
      return this.#readClaims(await this.database.run(CLAIM.with(asked)), claims.length);
    const rows = await this.database.run<ExchangeRow>(EXCHANGE.with(() => ({ ...asked(), ...ended })));
    const claimed = this.#readClaims(rows, claims.length).values();
    const completed = readCompletions(rows[0]?.unwritten ?? [], completions.length).values();
    return moves.map((move) => (isClaim(move) ? claimed : completed).next().value as Answer);
  }

  #readClaims(rows: readonly AnswerRow[], count: number): (ClaimRow | FirstAttempts)[] {
    const [{ now_ms: nowMs, first_token: token }] = rows as [AnswerRow];
    this.#clock.heard(nowMs);
    const first = new FirstAttempts(Number(token), nowMs);
    const answers = Array.from({ length: count }, (): ClaimRow | FirstAttempts => first);
    for (const row of rows) if (row.n !== null) answers[row.n - 1] = row;
    return answers;
  }
}

type Move = ClaimRequest | Completion;
/** An error is the answer to a completion whose row is locked. */
type Answer = ClaimRow | FirstAttempts | Recorded | RowLockedError;

function isClaim(move: Move): move is ClaimRequest {
  return 'fingerprint' in move;
}

/** A row of the answer to claims. `n` is null where all that were asked for are first attempts. */
type AnswerRow = ClaimRow & {
  readonly n: number | null;
  readonly now_ms: number;
  readonly first_token: string;
};

type ExchangeRow = AnswerRow & { readonly unwritten: readonly Unwritten[] | null };

/** A completion that was not written. */
export interface Unwritten {
  readonly n: number;
  readonly is_recorded: boolean;
  readonly is_locked: boolean;
}

function claimInput(
  { queue, origin, effect, leaseMs, repeatableMs, budgetMs, canReconcile }: ClaimRules,
  requests: readonly ClaimRequest[],
  when: { readonly isKnown: boolean; readonly waitedForUntilMs: number | null },
) {
  return {
    queue,
    origin,
    effect,
    leaseMs,
    repeatableMs,
    budgetMs,
    canReconcile,
    tenantId: requests.map((request) => request.tenantId),
    operationKey: requests.map((request) => request.operationKey),
    jobName: requests.map((request) => request.jobName),
    jobId: requests.map((request) => request.jobId),
    fingerprint: requests.map((request) => request.fingerprint),
    runId: requests.map((request) => request.runId),
    deadlineAt: sparse(requests.map((request) => request.deadline)),
    availableMs: requests.map((request) => request.availableAt),
    stepOf: sparse(requests.map((request) => request.step?.of ?? null)),
    step: sparse(requests.map((request) => request.step?.name ?? null)),
    trace: sparse(requests.map((request) => request.span?.reference ?? null)),
    needsRow: requests.map((request) => request.needsRow),
    beganAt: sparse(requests.map((request) => request.beganAt ?? null)),
    ...when,
  };
}

function completionInput(completions: readonly Completion[]) {
  return {
    endedTenantId: completions.map((completion) => completion.tenantId),
    endedKey: completions.map((completion) => completion.operationKey),
    token: completions.map((completion) => completion.token),
    result: completions.map((completion) => completion.result),
    retentionMs: completions.map((completion) => completion.retentionMs),
    resultOmitted: sparse(completions.map((completion) => completion.resultOmitted)),
    degraded: sparse(completions.map((completion) => completion.degraded)),
  };
}

/** Whether each of so many completions was written. An error is the answer for one whose row is locked. */
export function readCompletions(rows: readonly Unwritten[], count: number): (Recorded | RowLockedError)[] {
  const answers = Array.from({ length: count }, (): Recorded | RowLockedError => 'recorded');
  for (const row of rows)
    if (!row.is_recorded) answers[row.n - 1] = row.is_locked ? new RowLockedError() : 'lost';
  return answers;
}

/** Another transaction holds the row that a statement should write; nothing was written. */
export class RowLockedError extends Error {
  override readonly name = 'RowLockedError';

  constructor() {
    super('Another transaction holds the row of the operation.');
  }
}
