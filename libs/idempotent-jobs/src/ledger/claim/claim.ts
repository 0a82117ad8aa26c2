import type { Effect } from '../../operation/effect.js';
import type { OperationIdentity } from '../../operation/identity.js';
import type { Origin } from '../../operation/origin.js';
import type { OperationStatus } from '../../operation/status.js';

/**
 * What claims and results have in common that go in one statement: all of a processor's, unless a retry policy gives some of
 * them another time budget.
 */
export interface ClaimRules {
  readonly queue: string;
  readonly origin: Origin;
  readonly effect: Effect;
  readonly leaseMs: number;
  /** For how long after the first attempt the effect may be repeated, in ms. Null means forever. */
  readonly repeatableMs: number | null;
  /** How long completed operations are remembered, in ms. */
  readonly retentionMs: number;
  /** The total time budget from the first attempt, in ms. Null means that there is none. */
  readonly budgetMs: number | null;
  /** Whether the claimant can ask the service if the effect of an earlier attempt happened. */
  readonly canReconcile: boolean;
}

/** The parent operation and the name of a step. */
export interface StepName {
  /** The key of the operation whose handler runs it. */
  readonly of: string;
  /** The step's name. For a step inside of another step: both names, with "/" between. */
  readonly name: string;
}

/** What a worker asks for when it wants to run an operation. */
export interface ClaimRequest extends OperationIdentity {
  readonly rules: ClaimRules;
  readonly jobName: string;
  readonly jobId: string;
  readonly fingerprint: string;
  /** Identifies this run, not this process: two deliveries in one process compete, too. */
  readonly runId: string;
  /** The deadline given at enqueue, which overrides the budget. Null when none was given. */
  readonly deadline: Date | null;
  /** When its job could first run, in ms since 1970 by the clock of the process that made the job. */
  readonly availableAt: number;
  /** Whether to claim nothing when the operation has no row. */
  readonly needsRow: boolean;
  /** When an attempt began that is claimed only now, by the database's clock. Undefined for one that begins with its claim. */
  readonly beganAt?: Date | undefined;
  /** The step that is claimed. Undefined when a job or a call asks for the claim. */
  readonly step?: StepName | undefined;
  /** The run's span. It is kept with the claim and linked to the operation's last span. */
  readonly span?: ClaimSpan | undefined;
}

/** The part of a span that a claim needs. */
export interface ClaimSpan {
  readonly reference: string | undefined;
  follows(reference: string | null): void;
}

/** The right to run one attempt or, with `mustReconcile`, to ask first what became of the last one. */
export interface Claim extends OperationIdentity {
  readonly token: number;
  /** This attempt's number, from 1. With `mustReconcile`, the number of the last attempt, which is 0 after a redrive. */
  readonly attempt: number;
  /** Whether the operation is in doubt, so that the claimant must first ask whether its effect happened. */
  readonly mustReconcile: boolean;
  /** When the attempt (with `mustReconcile`, the last one) was started. */
  readonly startedAt: Date;
  /** For how long the last attempt that left a doubt has been over, in ms. Undefined when no attempt left one. */
  readonly doubtAgeMs: number | undefined;
  /** How many earlier attempts failed on record; the other `attempt - 1 - failures` vanished without a record. */
  readonly failures: number;
  /** The last wait before another attempt, in ms. Undefined when there was none. */
  readonly lastDelayMs: number | undefined;
  /** Whether an earlier attempt may have had its effect. */
  readonly isDoubtful: boolean;
  readonly deadline: Date | undefined;
  /** What is left of the time budget, in ms by the database's clock. Undefined when there is no budget. */
  readonly remainingMs: number | undefined;
  /** For how long from now the effect stays repeatable, in ms. Infinity means forever. */
  readonly repeatableMs: number;
  /** The attempt that this claim took over after its worker vanished. Undefined when it took over none. */
  readonly tookOver: VanishedAttempt | undefined;
}

/** An attempt that ended without a record: its lease expired. */
export interface VanishedAttempt {
  readonly token: number;
  readonly attempt: number;
  readonly runId: string | undefined;
  readonly startedAt: Date | undefined;
  /** The effect that the attempt had declared. Undefined when no attempt was started. */
  readonly effect: Effect | undefined;
}

/** All answers to a claim. */
export type ClaimAnswer =
  | { readonly kind: 'acquired'; readonly claim: Claim }
  /** `degraded` names the dependency that a fallback answered for. */
  | { readonly kind: 'replay'; readonly result: unknown; readonly degraded: string | undefined }
  | { readonly kind: 'busy'; readonly leaseLeftMs: number }
  /** Another transaction holds its row. */
  | { readonly kind: 'locked' }
  /** The operation's delay, or the pause after its last attempt, is not over. */
  | { readonly kind: 'not_yet'; readonly waitMs: number }
  | { readonly kind: 'conflict' }
  /** There is no such operation, but one may have existed and been forgotten. */
  | { readonly kind: 'expired' }
  /** There is no such operation, and nothing was claimed because the request has `needsRow`. */
  | { readonly kind: 'absent' }
  /** With `unrecorded`, the row does not say in_doubt yet, and the claimant must write it. */
  | {
      readonly kind: 'in_doubt';
      readonly unrecorded: { readonly token: number; readonly attempt: number } | undefined;
    }
  | { readonly kind: 'dead' };

/** A peek found an operation that could be claimed now. The peek itself claims nothing. */
export interface Runnable {
  readonly kind: 'runnable';
  /** What is left of its time budget, in ms by the database's clock. Undefined when the budget has not begun. */
  readonly remainingMs: number | undefined;
  /** How many attempts were started. */
  readonly attempts: number;
  /** Whether an earlier attempt may have had its effect. */
  readonly isDoubtful: boolean;
}

/** All answers to a peek. */
export type PeekAnswer = Exclude<ClaimAnswer, { kind: 'acquired' | 'expired' | 'absent' }> | Runnable;

/** What a statement says of all first attempts that it has claimed, or that need no claim. */
export class FirstAttempts {
  constructor(
    readonly token: number,
    /** When they were started, in ms since 1970 by the database's clock. */
    private readonly nowMs: number,
  ) {}

  claimOf({ tenantId, operationKey, rules, deadline: own }: ClaimRequest): Claim {
    const { budgetMs, repeatableMs } = rules;
    const deadline = own ?? (budgetMs === null ? undefined : new Date(this.nowMs + budgetMs));
    return {
      tenantId,
      operationKey,
      token: this.token,
      attempt: 1,
      failures: 0,
      lastDelayMs: undefined,
      isDoubtful: false,
      mustReconcile: false,
      startedAt: new Date(this.nowMs),
      doubtAgeMs: undefined,
      deadline,
      remainingMs: deadline && deadline.getTime() - this.nowMs,
      repeatableMs: repeatableMs ?? Infinity,
      tookOver: undefined,
    };
  }
}

/** One row of the claim or the peek statement. */
export interface ClaimRow {
  readonly token: string | null;
  readonly attempts: number;
  readonly failures: number;
  readonly doubt_since: Date | null;
  readonly deadline_at: Date | null;
  readonly remaining_ms: number | null;
  readonly repeatable_ms: number;
  readonly started_at: Date | null;
  readonly must_reconcile: boolean | null;
  readonly doubt_age_ms: number | null;
  readonly delay_ms: number | null;
  readonly status: OperationStatus | null;
  readonly is_same_request: boolean | null;
  /** JSON text, as stored. */
  readonly result: string | null;
  readonly degraded: string | null;
  readonly is_old: boolean;
  /** Whether another transaction holds the row. A peek locks nothing and does not say. */
  readonly is_locked?: boolean;
  readonly wait_ms: number | null;
  readonly is_reconciling: boolean | null;
  readonly seen_token: string | null;
  readonly seen_run_id: string | null;
  readonly seen_effect: Effect | null;
  readonly seen_attempts: number | null;
  readonly seen_started_at: Date | null;
  readonly lease_left_ms: number | null;
  readonly is_past_repeating: boolean | null;
  readonly last_trace: string | null;
}

/** What a row says. The result of a replay is JSON text, as stored. */
type ReadAnswer =
  | Exclude<ClaimAnswer, { kind: 'replay' }>
  | { readonly kind: 'replay'; readonly resultText: string | null; readonly degraded: string | undefined }
  | { readonly kind: 'ask_again' }
  | { readonly kind: 'old' };

/** Reads what a peek found. A row that a claim would have won is runnable. */
export function readPeek(
  request: ClaimRequest,
  row: ClaimRow,
): Exclude<ReadAnswer, { kind: 'acquired' | 'expired' | 'absent' | 'ask_again' | 'old' }> | Runnable {
  const answer = readAnswer(request, { ...row, token: null });
  switch (answer.kind) {
    case 'acquired':
    case 'expired':
    case 'absent':
    case 'old':
    case 'ask_again':
      return {
        kind: 'runnable',
        remainingMs: row.remaining_ms ?? undefined,
        attempts: row.seen_attempts ?? 0,
        isDoubtful: row.status === 'running' || row.doubt_since !== null,
      };
    default:
      return answer;
  }
}

/**
 * Reads the answer from a row. `ask_again`: a rival wrote the row after the statement's snapshot was taken, so nothing
 * can be said about it yet. `old`: nothing was claimed, because the operation's row may have been pruned.
 */
export function readAnswer(request: ClaimRequest, row: ClaimRow | FirstAttempts): ReadAnswer {
  if (row instanceof FirstAttempts) return { kind: 'acquired', claim: row.claimOf(request) };
  if (row.is_old) return { kind: 'old' };
  if (row.token !== null) return { kind: 'acquired', claim: readClaim(request, row, Number(row.token)) };
  if (row.status === null) return { kind: request.needsRow ? 'absent' : 'ask_again' };
  if (row.is_same_request === false) return { kind: 'conflict' };
  const answer = readStatus(request, row, row.status);
  const wantsRow =
    answer.kind === 'ask_again' || (answer.kind === 'in_doubt' && answer.unrecorded !== undefined);
  return row.is_locked === true && wantsRow ? { kind: 'locked' } : answer;
}

function readStatus(request: ClaimRequest, row: ClaimRow, status: OperationStatus): ReadAnswer {
  switch (status) {
    case 'completed':
      return { kind: 'replay', resultText: row.result, degraded: row.degraded ?? undefined };
    case 'dead':
      return { kind: 'dead' };
    case 'in_doubt':
      return readDoubt(request, row);
    case 'running':
      if (isLeased(row)) return { kind: 'busy', leaseLeftMs: row.lease_left_ms as number };
      return mayNotRun(request, row)
        ? { kind: 'in_doubt', unrecorded: readUnrecorded(row) }
        : { kind: 'ask_again' };
    case 'retrying':
      return mayNotRun(request, row) ? { kind: 'in_doubt', unrecorded: readUnrecorded(row) } : readWait(row);
    case 'pending':
      return readWait(row);
    default:
      return status satisfies never;
  }
}

function isLeased({ lease_left_ms: leaseLeftMs }: ClaimRow): boolean {
  return leaseLeftMs !== null && leaseLeftMs > 0;
}

/** Whether the effect must not be repeated and the claimant cannot ask whether it happened. */
function mayNotRun({ rules }: ClaimRequest, row: ClaimRow): boolean {
  return row.is_past_repeating === true && !rules.canReconcile;
}

/** When no next question is scheduled, the operation waits for a person, and its dead letter is already written. */
function readDoubt({ rules }: ClaimRequest, row: ClaimRow): ReadAnswer {
  if (isLeased(row)) return { kind: 'busy', leaseLeftMs: row.lease_left_ms as number };
  if (row.is_reconciling !== true) return { kind: 'in_doubt', unrecorded: undefined };
  return rules.canReconcile ? readWait(row) : { kind: 'in_doubt', unrecorded: readUnrecorded(row) };
}

function readClaim(request: ClaimRequest, row: ClaimRow, token: number): Claim {
  return {
    tenantId: request.tenantId,
    operationKey: request.operationKey,
    token,
    attempt: row.attempts,
    failures: row.failures,
    lastDelayMs: row.delay_ms ?? undefined,
    isDoubtful: row.doubt_since !== null,
    mustReconcile: row.must_reconcile === true,
    startedAt: row.started_at as Date,
    doubtAgeMs: row.doubt_since === null ? undefined : (row.doubt_age_ms ?? undefined),
    deadline: row.deadline_at ?? undefined,
    remainingMs: row.remaining_ms ?? undefined,
    repeatableMs: row.repeatable_ms,
    tookOver: row.status === 'running' && row.seen_run_id !== request.runId ? readVanished(row) : undefined,
  };
}

function readWait({ wait_ms: waitMs }: ClaimRow): ReadAnswer {
  return waitMs !== null && waitMs > 0 ? { kind: 'not_yet', waitMs } : { kind: 'ask_again' };
}

function readUnrecorded(row: ClaimRow): { token: number; attempt: number } {
  return { token: Number(row.seen_token), attempt: row.seen_attempts ?? 0 };
}

function readVanished(row: ClaimRow): VanishedAttempt {
  return {
    token: Number(row.seen_token),
    attempt: row.seen_attempts ?? 0,
    runId: row.seen_run_id ?? undefined,
    startedAt: row.seen_started_at ?? undefined,
    effect: row.seen_effect ?? undefined,
  };
}
