import type { OperationIdentity } from '../operation/identity.js';
import type { Database } from '../postgres/database.js';
import { GIVE_BACK } from './claim.statement.js';

/** A claim that nobody will use, if it was won at all. */
export interface UnusedClaim extends OperationIdentity {
  /** Names the run that asked for it. */
  readonly workerId: string;
  /** Until when it could be won, in ms since 1970 by the database's clock; undefined: that is over. */
  readonly possibleUntil: number | undefined;
}

const FIRST_PAUSE_MS = 250;
const MAX_PAUSE_MS = 5_000;
/** Many more say that Postgres is gone for long; their leases end by themselves. */
const MAX_UNUSED = 10_000;

/**
 * Gives back claims whose answers never came: their handlers were not called, and that must not look like a doubt. Goes on
 * until Postgres says that none of them can be won any more, or the process ends.
 */
export class UnusedClaims {
  #unused: UnusedClaim[] = [];
  #giving: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = FIRST_PAUSE_MS;

  constructor(private readonly database: Database) {}

  add(claim: UnusedClaim): void {
    if (this.#unused.length < MAX_UNUSED) this.#unused.push(claim);
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
      const [row] = await this.database.run<{ now_ms: number }>(GIVE_BACK, [
        claims.map(({ tenantId }) => tenantId),
        claims.map(({ operationKey }) => operationKey),
        claims.map(({ workerId }) => workerId),
      ]);
      const nowMs = row?.now_ms ?? 0;
      const done = new Set(claims.filter(({ possibleUntil }) => (possibleUntil ?? 0) < nowMs));
      this.#unused = this.#unused.filter((claim) => !done.has(claim));
    } catch {
      // Postgres is out of reach, or somebody holds one of the rows: once more, later.
    }
  }
}
