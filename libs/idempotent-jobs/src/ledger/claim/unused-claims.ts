import { Injectable } from '@nestjs/common';
import type { OperationIdentity } from '../../operation/identity.js';
import { Database } from '../postgres/database.js';
import { QUERY_TIMEOUT_MS } from '../postgres/ledger-pool.js';
import { GIVE_BACK } from './claim.statement.js';

/** A claim that nobody will use, if it was won at all. */
export interface UnusedClaim extends OperationIdentity {
  /** Names the run that asked for it. */
  readonly runId: string;
  /** Until when its statement may begin, in ms since 1970 by the database's clock; undefined: nobody knows. */
  readonly possibleUntil: number | undefined;
  /** After how many ms it is forgotten if nobody claims it again; undefined: it is not. */
  readonly forgetAfterMs: number | undefined;
}

/** One that is not given back for good. */
interface Waiting extends UnusedClaim {
  /** When no statement can win it any more, by the database's clock; undefined: that clock has not been heard yet. */
  overAt?: number;
}

const FIRST_PAUSE_MS = 250;
const MAX_PAUSE_MS = 5_000;
/** Many more say that Postgres is gone for long; their leases end by themselves. */
const MAX_UNUSED = 10_000;

/**
 * Gives back claims whose answers never came: their handlers were not called, and that must not look like a doubt. Goes on
 * until Postgres says that none of them can be won any more, or the process ends.
 */
@Injectable()
export class UnusedClaims {
  #unused: Waiting[] = [];
  #giving: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = FIRST_PAUSE_MS;

  constructor(private readonly database: Database) {}

  add(claim: UnusedClaim): void {
    if (this.#unused.length < MAX_UNUSED) this.#unused.push({ ...claim });
    this.#pauseMs = FIRST_PAUSE_MS;
    this.#schedule(0);
  }

  /** Waits for what can be given back at once. What is left is left to the leases. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await (this.#giving ?? (this.#unused.length > 0 ? this.#giveBack() : undefined));
    clearTimeout(this.#timer);
    this.#unused = [];
  }

  #schedule(ms: number): void {
    if (this.#timer !== undefined || this.#giving !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#giving = this.#giveBack().finally(() => {
        this.#giving = undefined;
        if (this.#unused.length > 0) this.#schedule(this.#pauseMs);
        this.#pauseMs = Math.min(this.#pauseMs * 2, MAX_PAUSE_MS);
      });
    }, ms);
    this.#timer.unref();
  }

  /** Never rejects. */
  async #giveBack(): Promise<void> {
    const claims = this.#unused;
    try {
      const rows = await this.database.run<{ is_locked: boolean; now_ms: number }>(GIVE_BACK, [
        claims.map(({ tenantId }) => tenantId),
        claims.map(({ operationKey }) => operationKey),
        claims.map(({ runId }) => runId),
        claims.map(({ forgetAfterMs }) => forgetAfterMs ?? null),
      ]);
      const done = new Set(
        claims.filter((claim, index) => {
          const { is_locked: isLocked, now_ms: nowMs } = rows[index] as (typeof rows)[number];
          // What began in time may take as long as any statement.
          claim.overAt ??= (claim.possibleUntil ?? nowMs + QUERY_TIMEOUT_MS) + QUERY_TIMEOUT_MS;
          return !isLocked && claim.overAt < nowMs;
        }),
      );
      this.#unused = this.#unused.filter((claim) => !done.has(claim));
    } catch {
      // Postgres is out of reach: once more, later.
    }
  }
}
