import { Injectable } from '@nestjs/common';
import { LibraryLog } from '../../events/library-log.js';
import { Database } from '../../ledger/postgres/database.js';
import type { Statement } from '../../ledger/postgres/statement.js';
import { COUNT_PRUNABLE, PRUNE_LETTERS, PRUNE_OPERATIONS } from './prune.statements.js';

/** How many rows were pruned, or would be. */
export interface Pruned {
  readonly operations: number;
  readonly letters: number;
}

/** Prunes what is past its retention, at intervals and on request. Any number of processes may do so at the same time. */
@Injectable()
export class Pruner {
  #timer: NodeJS.Timeout | undefined;
  #pruning: Promise<unknown> | undefined;
  #isStopped = false;

  constructor(
    private readonly database: Database,
    private readonly log: LibraryLog,
  ) {}

  start(everyMs: number): void {
    this.#timer = setInterval(() => {
      this.#pruning ??= this.prune()
        .catch((error: unknown) =>
          this.log.trouble('Pruning was interrupted; it goes on with the next time', error),
        )
        .finally(() => (this.#pruning = undefined));
    }, everyMs);
    this.#timer.unref();
  }

  /** Finishes the batch under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#timer);
    await this.#pruning;
  }

  async prune(): Promise<Pruned> {
    return {
      operations: await this.#inBatches(PRUNE_OPERATIONS),
      letters: await this.#inBatches(PRUNE_LETTERS),
    };
  }

  /** Counts what {@link prune} would remove. */
  async count(): Promise<Pruned> {
    const [row] = await this.database.run<Pruned>(COUNT_PRUNABLE.with({}));
    return row as Pruned;
  }

  async #inBatches(statement: Statement<'limit'>): Promise<number> {
    let all = 0;
    while (!this.#isStopped) {
      const startedAt = performance.now();
      const [row] = await this.database.run<{ rows: number }>(statement.with({ limit: BATCH }));
      const rows = row?.rows ?? 0;
      all += rows;
      if (rows < BATCH) break;
      // Rests for as long as the batch took: pruning never takes more than half of the database's time.
      await new Promise((resolve) => setTimeout(resolve, performance.now() - startedAt));
    }
    return all;
  }
}

const BATCH = 500;
