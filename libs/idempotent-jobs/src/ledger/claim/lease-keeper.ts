import { Injectable, Optional } from '@nestjs/common';
import type { OperationIdentity } from '../../operation/identity.js';
import { Database } from '../postgres/database.js';
import { rowsOf, statement } from '../postgres/statement.js';
import { outsideOfAnyFrame } from '../../tenancy/outside-of-any-frame.js';

/** An attempt whose lease is kept alive while its handler runs. */
export interface KeptLease extends OperationIdentity {
  readonly token: number;
  readonly leaseMs: number;
  /** Called once when the lease is gone: taken over, or not renewed in time. */
  readonly onLost: (why: 'taken_over' | 'not_renewed') => void;
}

/** A lease that is being kept alive. */
export interface LeaseHandle {
  /**
   * Whether the lease is over, or so nearly that nothing must be begun under it. Reckoned now, by the clock: a process that
   * was stopped, or busy, for longer than its lease has not heard of that yet.
   */
  readonly isNearlyOver: () => boolean;
  /**
   * The same by the monotonic clock alone: what has begun goes on when somebody sets the clock of the wall, which says
   * nothing about the lease.
   */
  readonly hasRunOut: () => boolean;
  /** Asks Postgres now; whether something may be begun under it afterwards. */
  readonly confirm: () => Promise<boolean>;
  /** Stops renewing. */
  readonly release: () => void;
}

/** The share of a lease, at its end, in which nothing is begun. */
const NEARLY = 0.1;

/**
 * A moment by two clocks of the process: the monotonic one, by which leases are kept, and which stands still while some
 * virtual machines are paused; and that of the wall, which can be set.
 */
export interface LeaseTime {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/** Now. */
export function leaseTime(): LeaseTime {
  return { monotonicMs: performance.now(), wallMs: Date.now() };
}

function ageMs(since: LeaseTime, now: LeaseTime): number {
  return now.monotonicMs - since.monotonicMs;
}

/** By whichever clock says that more time has passed: not to begin is always safe. */
function longestAgeMs(since: LeaseTime, now: LeaseTime): number {
  return Math.max(ageMs(since, now), now.wallMs - since.wallMs);
}

function laterOf(one: LeaseTime, other: LeaseTime): LeaseTime {
  return other.monotonicMs >= one.monotonicMs ? other : one;
}

/**
 * Extends leases that are still held under their token. A lease that ran out but was not taken over is extended too;
 * nobody else has the right. One row comes back per lease: `is_held` is false when it is gone (taken over, settled or
 * deleted). A row that somebody has locked is left alone this time: waiting for it would cost all the others.
 */
const RENEW = statement(
  'renew',
  `
WITH asked AS (
  SELECT * FROM ${rowsOf('$1::text[]', '$2::text[]', '$3::bigint[]', '$4::float8[]')}
    AS h (tenant_id, operation_key, token, lease_ms, n)
), held AS (
  SELECT h.*
  FROM asked h CROSS JOIN LATERAL (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = h.tenant_id AND o.operation_key = h.operation_key AND o.fencing_token = h.token
      AND o.lease_expires_at IS NOT NULL
    FOR UPDATE SKIP LOCKED
  ) o
), renewed AS (
  UPDATE {schema}.job_outcomes o
  SET lease_expires_at = clock_timestamp() + held.lease_ms * interval '1 millisecond'
  FROM held
  WHERE o.tenant_id = held.tenant_id AND o.operation_key = held.operation_key
  RETURNING held.n
)
SELECT
  renewed.n IS NOT NULL AS is_renewed,
  renewed.n IS NOT NULL OR o.is_held AS is_held
FROM asked h
LEFT JOIN renewed ON renewed.n = h.n
CROSS JOIN LATERAL (
  SELECT renewed.n IS NULL AND EXISTS (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = h.tenant_id AND o.operation_key = h.operation_key
      AND o.fencing_token = h.token AND o.lease_expires_at IS NOT NULL
  ) AS is_held
) o
ORDER BY h.n
`,
  'lease',
);

/**
 * Renews the leases of all of a process's running attempts, each at a third of its length, in one statement.
 *
 * When Postgres cannot be reached, a lease counts as lost once its length has passed since the last renewal was
 * *sent*, by the process's monotonic clock: from then on another worker may hold it.
 */
@Injectable()
export class LeaseKeeper {
  readonly #leases = new Map<KeptLease, { renewedAt: LeaseTime }>();
  #timer: NodeJS.Timeout | undefined;
  #shortestMs = Infinity;
  #renewingSince: LeaseTime | undefined;

  constructor(
    private readonly database: Database,
    @Optional() private readonly now: () => LeaseTime = leaseTime,
  ) {}

  /** Starts renewing. `claimSentAt`: when the claim was sent. */
  keep(lease: KeptLease, claimSentAt: LeaseTime): LeaseHandle {
    const held = { renewedAt: claimSentAt };
    this.#leases.set(lease, held);
    if (lease.leaseMs < this.#shortestMs) {
      // The timer that runs was set for longer leases.
      clearTimeout(this.#timer);
      this.#timer = undefined;
    }
    this.#schedule();
    const usableMs = lease.leaseMs * (1 - NEARLY);
    const isNearlyOver = (): boolean => longestAgeMs(held.renewedAt, this.now()) >= usableMs;
    return {
      isNearlyOver,
      hasRunOut: () => ageMs(held.renewedAt, this.now()) >= usableMs,
      confirm: async () => {
        await this.#renew([lease], this.now());
        return this.#leases.has(lease) && !isNearlyOver();
      },
      release: () => this.#leases.delete(lease),
    };
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#leases.clear();
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#leases.size === 0) return;
    this.#shortestMs = Infinity;
    for (const lease of this.#leases.keys()) this.#shortestMs = Math.min(this.#shortestMs, lease.leaseMs);
    // Looking twice per third: a lease that arrives just after a look is still renewed before half its length.
    // All leases have one timer: it belongs to none of their tenants.
    this.#timer = outsideOfAnyFrame(() => setTimeout(() => void this.#tick(), this.#shortestMs / 6));
    this.#timer.unref();
  }

  async #tick(): Promise<void> {
    this.#timer = undefined;
    // A renewal that Postgres does not answer must not be the last one.
    const isAnswerOverdue =
      this.#renewingSince === undefined || ageMs(this.#renewingSince, this.now()) >= this.#shortestMs / 3;
    if (isAnswerOverdue) await this.#renewDue();
    this.#dropExpired();
    this.#schedule();
  }

  async #renewDue(): Promise<void> {
    const sentAt = this.now();
    const due = [...this.#leases].filter(
      ([lease, { renewedAt }]) => ageMs(renewedAt, sentAt) >= lease.leaseMs / 3,
    );
    if (due.length === 0) return;
    this.#renewingSince = sentAt;
    // Not awaited past the shortest lease: with Postgres out of reach the loop must go on to see leases expire.
    const renewal = this.#renew(
      due.map(([lease]) => lease),
      sentAt,
    ).finally(() => {
      if (this.#renewingSince === sentAt) this.#renewingSince = undefined;
    });
    const patienceMs = Math.min(...due.map(([lease]) => lease.leaseMs / 6));
    await Promise.race([renewal, new Promise((resolve) => setTimeout(resolve, patienceMs).unref())]);
  }

  async #renew(leases: KeptLease[], sentAt: LeaseTime): Promise<void> {
    let rows: { is_renewed: boolean; is_held: boolean }[];
    try {
      rows = await this.database.run(RENEW, [
        leases.map((lease) => lease.tenantId),
        leases.map((lease) => lease.operationKey),
        leases.map((lease) => lease.token),
        leases.map((lease) => lease.leaseMs),
      ]);
    } catch {
      // Postgres is out of reach: nothing is known to be lost yet. #dropExpired decides when it is.
      return;
    }
    for (const [index, lease] of leases.entries()) {
      const held = this.#leases.get(lease);
      if (held === undefined) continue;
      if (rows[index]?.is_renewed === true) held.renewedAt = laterOf(held.renewedAt, sentAt);
      else if (rows[index]?.is_held !== true) this.#lose(lease, 'taken_over');
    }
  }

  #dropExpired(): void {
    const now = this.now();
    for (const [lease, { renewedAt }] of this.#leases) {
      if (ageMs(renewedAt, now) >= lease.leaseMs) this.#lose(lease, 'not_renewed');
    }
  }

  #lose(lease: KeptLease, why: 'taken_over' | 'not_renewed'): void {
    this.#leases.delete(lease);
    lease.onLost(why);
  }
}
