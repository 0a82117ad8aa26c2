import { Injectable } from '@nestjs/common';
import type { OperationIdentity } from '../../operation/identity.js';
import { Database } from '../postgres/database.js';
import { QUERY_TIMEOUT_MS } from '../postgres/ledger-pool.js';
import { GIVE_BACK } from './claim.statement.js';

/** A claim that was perhaps won, and that no run will use. */
export interface UnusedClaim extends OperationIdentity {
  /** Identifies the run that asked for it. */
  readonly runId: string;
  /**
   * Until when its statement may begin, in ms since 1970 by the database's clock. Undefined when that clock is not known.
   */
  readonly possibleUntil: number | undefined;
  /** After how many ms the operation is forgotten if it is not claimed again. Undefined when it is kept. */
  readonly forgetAfterMs: number | undefined;
}

/** A claim that is still to be given back, because it may yet be won. */
interface Waiting extends UnusedClaim {
  /** When no statement can win it any more, by the database's clock. Undefined until that clock was heard. */
  overAt?: number;
}

const FIRST_PAUSE_MS = 250;
const MAX_PAUSE_MS = 5_000;
/** More than that means that Postgres is gone for long; the leases of those that are dropped end by themselves. */
const MAX_UNUSED = 10_000;

/**
 * Gives back claims whose answers never came: their handlers were not called, and that must not look like a doubt. Repeats
 * this until Postgres says that none of them can be won any more, or the process ends.
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

  /** Waits for one try to give back what is left. The leases of the rest end by themselves. */
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
      const rows = await this.database.run<{ is_locked: boolean; now_ms: number }>(
        GIVE_BACK.with({
          tenantId: claims.map(({ tenantId }) => tenantId),
          operationKey: claims.map(({ operationKey }) => operationKey),
          runId: claims.map(({ runId }) => runId),
          forgetAfterMs: claims.map(({ forgetAfterMs }) => forgetAfterMs ?? null),
        }),
      );
      const done = new Set(
        claims.filter((claim, index) => {
          const { is_locked: isLocked, now_ms: nowMs } = rows[index] as (typeof rows)[number];
          // A statement that began in time may take as long as any other.
          claim.overAt ??= (claim.possibleUntil ?? nowMs + QUERY_TIMEOUT_MS) + QUERY_TIMEOUT_MS;
          return !isLocked && claim.overAt < nowMs;
        }),
      );
      this.#unused = this.#unused.filter((claim) => !done.has(claim));
    } catch {
      // Postgres is out of reach; a later try follows.
    }
  }
}
