import type { Author } from '../operation/ledger-action.js';
import { jobIdOf, type OperationIdentity } from '../operation/identity.js';
import type { Database, Queryable } from '../postgres/database.js';
import { toDate, toDateOrNone } from '../postgres/to-date.js';
import { BRING_BACK, JUDGE } from './bring-back.statement.js';
import type { DeadLetterFilter } from './dead-letter.js';
import { filterValues, LONG_MS } from './letter.queries.js';
import type { Redrive, RedrivePace } from './redrive.js';
import {
  COUNT_REDRIVABLE,
  END_REDRIVE,
  KEEP_REDRIVE,
  LEAVE_REDRIVE,
  NEXT_LETTERS,
  REDRIVE_STATES,
  START_REDRIVE,
  TAKE_REDRIVE,
} from './redrive.statements.js';

/** What may be done to a letter. `allowed`: what was asked for; `completed`: its operation has, so nothing is run. */
export type Judgement =
  | 'allowed'
  | 'has_completed'
  | 'completed'
  | 'resolved'
  | 'no_identity'
  | 'conflict'
  | 'under_way'
  | 'in_doubt'
  | 'not_in_doubt'
  | 'no_payload'
  | 'deadline_passed';

/** A letter with the job and the operation it is about. */
export interface AddressedLetter {
  readonly id: string;
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly identity: OperationIdentity | undefined;
}

/** How a letter's operation is to be brought back. */
export type BringBackMode = 'redrive' | 'not_applied';

/** All that may be asked about a letter. */
export type JudgedMode = BringBackMode | 'applied';

/** A redrive of many, as its runner holds it. */
export interface HeldRedrive {
  readonly id: string;
  readonly queue: string;
  readonly runnerId: string;
  readonly pace: RedrivePace;
}

/** Brings operations back, one by one or many, and keeps the books of who asked for it. */
export class RedriveStore {
  constructor(private readonly database: Database) {}

  /** Brings back operations of letters. `held`: for a redrive of many, only while its runner holds it. */
  async bringBack(
    letters: readonly AddressedLetter[],
    mode: BringBackMode,
    author: Author,
    deadline: Date | undefined,
    held?: HeldRedrive,
  ): Promise<Map<string, Judgement>> {
    const rows = await this.database.run<{ id: string; verdict: Judgement }>(BRING_BACK, [
      letters.map((letter) => letter.id),
      letters.map(({ identity }) => (identity === undefined ? null : jobIdOf(identity))),
      mode,
      author.actor,
      author.note,
      deadline ?? null,
      held?.id ?? null,
      held?.runnerId ?? null,
    ]);
    return new Map(rows.map((row) => [row.id, row.verdict]));
  }

  /** What {@link bringBack} would answer, or whether a person may answer for the effect. */
  async judge(id: string, mode: JudgedMode, deadline: Date | undefined): Promise<Judgement | undefined> {
    const [row] = await this.database.run<{ verdict: Judgement }>(JUDGE, [[id], mode, deadline ?? null]);
    return row?.verdict;
  }

  async count(filter: DeadLetterFilter): Promise<{ redrivable: number; others: number }> {
    const [row] = await this.database.run<{ redrivable: number; others: number }>(
      COUNT_REDRIVABLE,
      filterValues(filter),
      undefined,
      LONG_MS,
    );
    return row as { redrivable: number; others: number };
  }

  /** Begins a redrive of many: its id, or why there is none: another is running, or nothing matches. */
  async start(
    filter: DeadLetterFilter,
    pace: RedrivePace,
    author: Author,
  ): Promise<{ readonly id: string } | 'running' | 'nothing'> {
    const { queue: _queue, ...conditions } = filter;
    const values = [
      ...filterValues(filter),
      author.actor,
      author.note,
      JSON.stringify(conditions),
      pace.ratePerSecond,
      pace.canary,
      pace.maxFailureShare,
    ];
    try {
      const [row] = await this.database.run<{ id: string }>(START_REDRIVE, values, undefined, LONG_MS);
      return row ?? 'nothing';
    } catch (error) {
      if ((error as { code?: unknown }).code === UNIQUE_VIOLATION) return 'running';
      throw error;
    }
  }

  async take(runnerId: string, leaseMs: number): Promise<HeldRedrive | undefined> {
    const [row] = await this.database.run<RedriveRow>(TAKE_REDRIVE, [runnerId, leaseMs]);
    if (row === undefined) return undefined;
    return { id: row.id, queue: row.queue, runnerId, pace: readPace(row) };
  }

  /** Whether the redrive is still this runner's to carry on. */
  async keep({ id, runnerId }: HeldRedrive, leaseMs: number): Promise<boolean> {
    return (await this.database.run(KEEP_REDRIVE, [id, runnerId, leaseMs])).length > 0;
  }

  async leave({ id, runnerId }: HeldRedrive): Promise<void> {
    await this.database.run(LEAVE_REDRIVE, [id, runnerId]);
  }

  async nextLetters(redriveId: string, limit: number): Promise<AddressedLetter[]> {
    const rows = await this.database.run<NextLetterRow>(NEXT_LETTERS, [redriveId, limit]);
    return rows.map((row) => ({
      id: row.id,
      queue: row.queue,
      jobName: row.job_name,
      jobId: row.job_id,
      identity: { tenantId: row.tenant_id, operationKey: row.operation_key },
    }));
  }

  /** Ends a redrive that is running; false: it was not. Without an author it ends by itself, by its runner's hand. */
  async end(
    id: string,
    status: 'completed' | 'stopped' | 'cancelled',
    because: string | undefined,
    by: { readonly author: Author } | { readonly runnerId: string },
    on?: Queryable,
  ): Promise<boolean> {
    const author = 'author' in by ? by.author : undefined;
    const rows = await this.database.run(
      END_REDRIVE,
      [
        id,
        status,
        because ?? null,
        author?.actor ?? null,
        author?.note ?? null,
        `redrive_${status}`,
        'runnerId' in by ? by.runnerId : null,
      ],
      on,
    );
    return rows.length > 0;
  }

  /** `tenantId`: only if it is limited to that tenant. */
  async get(id: string, tenantId?: string): Promise<Redrive | undefined> {
    const values = [[id], null, tenantId ?? null, 1];
    const [row] = await this.database.run<RedriveRow>(REDRIVE_STATES, values, undefined, LONG_MS);
    return row === undefined ? undefined : readRedrive(row);
  }

  async list(queue: string | undefined, tenantId: string | undefined, limit: number): Promise<Redrive[]> {
    const values = [null, queue ?? null, tenantId ?? null, limit];
    const rows = await this.database.run<RedriveRow>(REDRIVE_STATES, values, undefined, LONG_MS);
    return rows.map(readRedrive);
  }
}

const UNIQUE_VIOLATION = '23505';

interface NextLetterRow {
  readonly id: string;
  readonly queue: string;
  readonly job_name: string;
  readonly job_id: string;
  readonly tenant_id: string;
  readonly operation_key: string;
}

interface RedriveRow {
  readonly id: string;
  readonly queue: string;
  readonly status: Redrive['status'];
  readonly ended_because: string | null;
  readonly filter: Redrive['filter'];
  readonly actor: string;
  readonly note: string;
  readonly letters: number;
  readonly rate_per_second: number;
  readonly canary: number;
  readonly max_failure_share: number;
  readonly still_open: number;
  readonly redriven: number;
  readonly under_way: number;
  readonly failed: number;
  readonly created_at: Date;
  readonly ended_at: Date | null;
}

function readPace(row: RedriveRow): RedrivePace {
  return {
    ratePerSecond: row.rate_per_second,
    canary: row.canary,
    maxFailureShare: row.max_failure_share,
  };
}

function readRedrive(row: RedriveRow): Redrive {
  return {
    id: row.id,
    queue: row.queue,
    status: row.status,
    endedBecause: row.ended_because ?? undefined,
    filter: row.filter,
    actor: row.actor,
    note: row.note,
    letters: row.letters,
    progress: {
      left: row.still_open,
      redriven: row.redriven,
      underWay: row.under_way,
      failed: row.failed,
    },
    createdAt: toDate(row.created_at),
    endedAt: toDateOrNone(row.ended_at),
  };
}
