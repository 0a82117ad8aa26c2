import { Injectable } from '@nestjs/common';
import type { Author } from '../operation/ledger-action.js';
import { Database, type Queryable } from '../ledger/postgres/database.js';
import { sqlStateOf, UNIQUE_VIOLATION } from '../ledger/postgres/sqlstate.js';
import type { DeadLetterFilter } from './dead-letter.js';
import { filterInput, LONG_MS } from './letter.queries.js';
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

/** A bulk redrive, as its runner holds it. */
export interface ReservedRedrive {
  readonly id: string;
  readonly queue: string;
  readonly runnerId: string;
  readonly pace: RedrivePace;
}

/** Reads and writes the rows of bulk redrives. */
@Injectable()
export class BulkRedriveStore {
  constructor(private readonly database: Database) {}

  async count(filter: DeadLetterFilter): Promise<{ redrivable: number; others: number }> {
    const [row] = await this.database.run<{ redrivable: number; others: number }>(
      COUNT_REDRIVABLE.with(filterInput(filter)),
      undefined,
      LONG_MS,
    );
    return row as { redrivable: number; others: number };
  }

  /** Starts a bulk redrive. Returns its id, or why it did not start: another one is running, or nothing matches. */
  async start(
    filter: DeadLetterFilter,
    pace: RedrivePace,
    author: Author,
  ): Promise<{ readonly id: string } | 'running' | 'nothing'> {
    const { queue: _queue, ...conditions } = filter;
    const { actor, note } = author;
    const { ratePerSecond, canary, maxFailureShare } = pace;
    const call = START_REDRIVE.with({
      ...filterInput(filter),
      filter: JSON.stringify(conditions),
      actor,
      note,
      ratePerSecond,
      canary,
      maxFailureShare,
    });
    try {
      const [row] = await this.database.run<{ id: string }>(call, undefined, LONG_MS);
      return row ?? 'nothing';
    } catch (error) {
      if (sqlStateOf(error) === UNIQUE_VIOLATION) return 'running';
      throw error;
    }
  }

  async take(runnerId: string, leaseMs: number): Promise<ReservedRedrive | undefined> {
    const [row] = await this.database.run<Omit<ReservedRedrive, 'runnerId'>>(
      TAKE_REDRIVE.with({ runnerId, leaseMs }),
    );
    return row && { ...row, runnerId };
  }

  /** Renews the lease. Returns false when the redrive is no longer this runner's. */
  async keep({ id, runnerId }: ReservedRedrive, leaseMs: number): Promise<boolean> {
    return (await this.database.run(KEEP_REDRIVE.with({ redriveId: id, runnerId, leaseMs }))).length > 0;
  }

  async leave({ id, runnerId }: ReservedRedrive): Promise<void> {
    await this.database.run(LEAVE_REDRIVE.with({ redriveId: id, runnerId }));
  }

  async nextLetters(redriveId: string, limit: number): Promise<string[]> {
    const rows = await this.database.run<{ id: string }>(NEXT_LETTERS.with({ redriveId, limit }));
    return rows.map(({ id }) => id);
  }

  /** Ends a running redrive. Returns false when it was not running. Without an author its runner ends it. */
  async end(
    id: string,
    status: 'completed' | 'stopped' | 'cancelled',
    because: string | undefined,
    by: { readonly author: Author } | { readonly runnerId: string },
    on?: Queryable,
  ): Promise<boolean> {
    const author = 'author' in by ? by.author : undefined;
    const rows = await this.database.run(
      END_REDRIVE.with({
        redriveId: id,
        status,
        because,
        actor: author?.actor,
        note: author?.note,
        action: `redrive_${status}`,
        runnerId: 'runnerId' in by ? by.runnerId : null,
      }),
      on,
    );
    return rows.length > 0;
  }

  /** With `tenantId`, finds it only if it is limited to that tenant. */
  async get(id: string, tenantId?: string): Promise<Redrive | undefined> {
    const call = REDRIVE_STATES.with({ ids: [id], queue: null, tenantId, limit: 1 });
    return (await this.database.read<Redrive>(call, undefined, LONG_MS))[0];
  }

  list(queue: string | undefined, tenantId: string | undefined, limit: number): Promise<Redrive[]> {
    const call = REDRIVE_STATES.with({ ids: null, queue, tenantId, limit });
    return this.database.read(call, undefined, LONG_MS);
  }
}
