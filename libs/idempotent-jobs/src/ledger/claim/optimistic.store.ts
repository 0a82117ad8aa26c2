import { Injectable } from '@nestjs/common';
import { Encryption, resultBinding } from '../encryption/encryption.js';
import { Database, type Queryable } from '../postgres/database.js';
import { sparse } from '../postgres/statement.js';
import { CoalescersByRules } from './coalescers-by-rules.js';
import { type Claim, type ClaimAnswer, type ClaimRequest, type ClaimRules, FirstAttempts } from './claim.js';
import {
  type Completion,
  readCompletions,
  type Recorded,
  type RowLockedError,
  type Unwritten,
} from './exchange.js';
import { asUnstorable } from './unstorable.js';
import { LOOK, RECORD_FIRST } from './optimistic.statement.js';

/** What is seen of an operation before its first attempt. */
export type Look =
  /** Nothing is known of it but what was asked for. Nothing was written; the claim has no token. */
  | { readonly kind: 'untouched'; readonly claim: Claim }
  | Extract<ClaimAnswer, { kind: 'replay' }>
  /** It has to be claimed. */
  | { readonly kind: 'unsure' };

/** The result of an attempt without a claim. */
export interface FirstOutcome extends Omit<Completion, 'token'> {
  readonly request: ClaimRequest;
  readonly startedAt: Date;
}

/**
 * First attempts without a claim, for effects that may be repeated at any time: look, run, and record the outcome, of which the
 * first one counts. That is one write instead of two.
 *
 * What is given up, such as the record of a crash, is a list in `docs/guarantees.md` ("First attempts without a claim").
 */
@Injectable()
export class OptimisticStore {
  readonly #looks = new CoalescersByRules<ClaimRequest, Seen>((rules, requests) =>
    this.#look(rules, requests),
  );
  readonly #outcomes = new CoalescersByRules<FirstOutcome, Recorded | RowLockedError>(
    async (rules, outcomes) => readCompletions(await this.#record(rules, outcomes), outcomes.length),
  );

  constructor(
    private readonly database: Database,
    private readonly encryption: Encryption,
  ) {}

  /**
   * Looks at an operation.
   *
   * @throws RecordUnreadableError where the result of a completed operation cannot be read
   * @throws UnstorableError if Postgres cannot read a value of the request
   */
  look(request: ClaimRequest): Promise<Look> {
    return this.#looks.submit(request.rules, request).then((seen) => {
      if (seen instanceof FirstAttempts) {
        request.span?.follows(null);
        return { kind: 'untouched', claim: seen.claimOf(request) };
      }
      if (seen.status !== 'completed' || !seen.is_same_request) return { kind: 'unsure' };
      request.span?.follows(seen.last_trace);
      const result = this.encryption.openText(seen.result, resultBinding(request));
      return { kind: 'replay', result, degraded: seen.degraded ?? undefined };
    }, refused);
  }

  /**
   * Records the outcome of an attempt, unless another one was first: `lost`. Within `connection`'s transaction, or at once.
   *
   * @throws RowLockedError while another transaction holds its row: ask again
   * @throws UnstorableError if Postgres cannot store a value of the request: its operation can have no row
   */
  async record(outcome: FirstOutcome, connection?: Queryable): Promise<Recorded> {
    const { rules } = outcome;
    if (connection === undefined)
      return (this.#outcomes.submit(rules, outcome) as Promise<Recorded>).catch(refused);
    const unwritten = await this.#record(rules, [outcome], connection).catch(refused);
    const [recorded] = readCompletions(unwritten, 1);
    if (recorded instanceof Error) throw recorded;
    return recorded as Recorded;
  }

  async #look({ queue }: ClaimRules, requests: readonly ClaimRequest[]): Promise<Seen[]> {
    const rows = await this.database.run<LookRow>(
      LOOK.with({
        queue,
        tenantId: requests.map((request) => request.tenantId),
        operationKey: requests.map((request) => request.operationKey),
        fingerprint: requests.map((request) => request.fingerprint),
        deadlineAt: sparse(requests.map((request) => request.deadline)),
        availableMs: requests.map((request) => request.availableAt),
        needsRow: requests.map((request) => request.needsRow),
      }),
    );
    const untouched = new FirstAttempts(NO_TOKEN, (rows[0] as LookRow).now_ms);
    const seen = requests.map((): Seen => untouched);
    for (const row of rows) if (row.n !== null) seen[row.n - 1] = row;
    return seen;
  }

  #record(
    { queue, origin, effect }: ClaimRules,
    outcomes: readonly FirstOutcome[],
    connection?: Queryable,
  ): Promise<Unwritten[]> {
    const call = RECORD_FIRST.with({
      queue,
      origin,
      effect,
      tenantId: outcomes.map((outcome) => outcome.tenantId),
      operationKey: outcomes.map((outcome) => outcome.operationKey),
      jobName: outcomes.map(({ request }) => request.jobName),
      jobId: outcomes.map(({ request }) => request.jobId),
      fingerprint: outcomes.map(({ request }) => request.fingerprint),
      runId: outcomes.map(({ request }) => request.runId),
      startedAt: outcomes.map((outcome) => outcome.startedAt),
      deadlineAt: sparse(outcomes.map(({ request }) => request.deadline)),
      trace: sparse(outcomes.map(({ request }) => request.span?.reference ?? null)),
      needsRow: outcomes.map(({ request }) => request.needsRow),
      result: outcomes.map((outcome) => outcome.result),
      retentionMs: outcomes.map((outcome) => outcome.retentionMs),
      resultOmitted: sparse(outcomes.map((outcome) => outcome.resultOmitted)),
      degraded: sparse(outcomes.map((outcome) => outcome.degraded)),
    });
    return this.database.run<Unwritten>(call, connection);
  }
}

/** Every recorded attempt has a greater one. */
const NO_TOKEN = 0;

type Seen = FirstAttempts | LookRow;

/** `n` is null where all operations are untouched. */
interface LookRow {
  readonly now_ms: number;
  readonly n: number | null;
  readonly status: string | null;
  readonly is_same_request: boolean | null;
  readonly result: string | null;
  readonly degraded: string | null;
  readonly last_trace: string | null;
}

function refused(error: unknown): never {
  throw asUnstorable(error);
}
