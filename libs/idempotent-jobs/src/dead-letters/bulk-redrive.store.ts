import { Injectable } from '@nestjs/common';
import type { Author } from '../operation/ledger-action.js';
import { Database, type Queryable } from '../ledger/postgres/database.js';
import type { DeadLetterFilter } from './dead-letter.js';
import { filterValues, LONG_MS } from './letter.queries.js';
import type { Redrive, RedrivePace } from './bulk-redrive.js';
import {
  COUNT_REDRIVABLE,
  END_REDRIVE,
  KEEP_REDRIVE,
  LEAVE_REDRIVE,
  NEXT_LETTERS,
  REDRIVE_STATES,
  START_REDRIVE,
  TAKE_REDRIVE,
} from './bulk-redrive.statements.js';

/** A redrive of many, as its runner holds it. */
export interface ReservedRedrive {
  readonly id: string;
  readonly queue: string;
  readonly runnerId: string;
  readonly pace: RedrivePace;
}

/** Keeps the books of redrives of many. */
@Injectable()
export class BulkRedriveStore {
  constructor(private readonly database: Database) {}

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

  async take(runnerId: string, leaseMs: number): Promise<ReservedRedrive | undefined> {
    const [row] = await this.database.run<Omit<ReservedRedrive, 'runnerId'>>(TAKE_REDRIVE, [
      runnerId,
      leaseMs,
    ]);
    return row && { ...row, runnerId };
  }

  /** Whether the redrive is still this runner's to carry on. */
  async keep({ id, runnerId }: ReservedRedrive, leaseMs: number): Promise<boolean> {
    return (await this.database.run(KEEP_REDRIVE, [id, runnerId, leaseMs])).length > 0;
  }

  async leave({ id, runnerId }: ReservedRedrive): Promise<void> {
    await this.database.run(LEAVE_REDRIVE, [id, runnerId]);
  }

  async nextLetters(redriveId: string, limit: number): Promise<string[]> {
    const rows = await this.database.run<{ id: string }>(NEXT_LETTERS, [redriveId, limit]);
    return rows.map(({ id }) => id);
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

interface RedriveRow extends Omit<Redrive, 'endedBecause' | 'endedAt'> {
  readonly endedBecause: string | null;
  readonly endedAt: Date | null;
}

function readRedrive(row: RedriveRow): Redrive {
  return { ...row, endedBecause: row.endedBecause ?? undefined, endedAt: row.endedAt ?? undefined };
}
