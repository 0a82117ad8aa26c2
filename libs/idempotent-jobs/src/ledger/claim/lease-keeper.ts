import { Injectable, Optional } from '@nestjs/common';
import type { OperationIdentity } from '../../operation/identity.js';
import { Database } from '../postgres/database.js';
import { inMs, locked, lookedUpByKey, rowsOf, statement } from '../postgres/statement.js';
import { outsideOfAnyFrame } from '../../tenancy/frames.js';

/** An attempt whose lease is kept alive while its handler runs. */
export interface KeptLease extends OperationIdentity {
  readonly token: number;
  readonly leaseMs: number;
  /** Called once when the lease is lost: taken over, or not renewed in time. */
  readonly onLost: (why: 'taken_over' | 'not_renewed') => void;
}

/** A lease that is being kept alive. */
export interface LeaseHandle {
  /**
   * Whether the lease is over, or will be so soon that nothing may begin under it. Computed from the clock on each call: a
   * process that was stopped or busy for longer than its lease has not noticed yet.
   */
  isNearlyOver(): boolean;
  /**
   * Whether the lease is over by the monotonic clock alone. Work that has begun uses this one: a change of the wall clock
   * says nothing about the lease.
   */
  hasRunOut(): boolean;
  /** Renews the lease in Postgres now, and answers whether something may begin under it. */
  confirm(): Promise<boolean>;
  /** Stops renewing. */
  release(): void;
}

/** The share of a lease, at its end, in which nothing is begun. */
const NEARLY = 0.1;

/**
 * A moment by two clocks of the process. Leases are kept by the monotonic clock, which stands still while some virtual
 * machines are paused; the wall clock does not, but can be set.
 */
export interface LeaseTime {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/** The current moment. */
export function leaseTime(): LeaseTime {
  return { monotonicMs: performance.now(), wallMs: Date.now() };
}

function ageMs(since: LeaseTime, now: LeaseTime): number {
  return now.monotonicMs - since.monotonicMs;
}

/** The longer of the two ages: not to begin something is always safe. */
function longestAgeMs(since: LeaseTime, now: LeaseTime): number {
  return Math.max(ageMs(since, now), now.wallMs - since.wallMs);
}

/** Whether a lease that began then would be over, or so nearly over that nothing may begin under it. */
export function isNearlyOver(leaseMs: number, since: LeaseTime, now = leaseTime()): boolean {
  return longestAgeMs(since, now) >= leaseMs * (1 - NEARLY);
}

function laterOf(one: LeaseTime, other: LeaseTime): LeaseTime {
  return other.monotonicMs >= one.monotonicMs ? other : one;
}

/**
 * Renews leases that are still held under their token. A lease that ran out but was not taken over is renewed too, because
 * no other worker has the right to the operation. One row comes back per lease: `is_held` is false when the lease is gone
 * (taken over, settled or deleted). A locked row is skipped this time: waiting for it would delay all other renewals.
 */
const RENEW = statement(
  'renew',
  `
WITH input AS (
  SELECT * FROM ${rowsOf('a', 'tenantId text', 'operationKey text', 'token bigint', 'leaseMs float8')}
), held AS (
  ${locked('input a', 'o.fencing_token = a.token AND o.lease_expires_at IS NOT NULL')}
), renewed AS (
  UPDATE {schema}.job_outcomes o
  SET lease_expires_at = ${inMs('held.lease_ms')}
  FROM held
  WHERE o.tenant_id = held.tenant_id AND o.operation_key = held.operation_key AND ${lookedUpByKey('held.operation_key')}
  RETURNING held.n
)
SELECT
  renewed.n IS NOT NULL AS is_renewed,
  renewed.n IS NOT NULL OR o.is_held AS is_held
FROM input a
LEFT JOIN renewed ON renewed.n = a.n
CROSS JOIN LATERAL (
  SELECT renewed.n IS NULL AND EXISTS (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
      AND o.fencing_token = a.token AND o.lease_expires_at IS NOT NULL
    OFFSET 0 -- looks it up by its key
  ) AS is_held
) o
ORDER BY a.n
`,
  'lease',
);

/**
 * Renews the leases of all running attempts of a process, each at a third of its length, in one statement. The length is
 * `leaseMs` of the processor, or of the module.
 *
 * When Postgres cannot be reached, a lease counts as lost once its length has passed since the last renewal was *sent*, by
 * the process's monotonic clock: from then on another worker may hold it.
 */
@Injectable()
export class LeaseKeeper {
  readonly #leases = new Map<KeptLease, HeldLease>();
  #timer: NodeJS.Timeout | undefined;
  #shortestMs = Infinity;
  #renewingSince: LeaseTime | undefined;

  constructor(
    private readonly database: Database,
    @Optional() private readonly now: () => LeaseTime = leaseTime,
  ) {}

  /** Starts renewing. `claimSentAt` is the moment when the claim was sent. */
  keep(lease: KeptLease, claimSentAt: LeaseTime): LeaseHandle {
    const held = new HeldLease(lease, claimSentAt, this, this.now);
    this.#leases.set(lease, held);
    if (lease.leaseMs < this.#shortestMs) {
      // The running timer was set for longer leases.
      clearTimeout(this.#timer);
      this.#timer = undefined;
    }
    this.#schedule();
    return held;
  }

  /** Renews a lease now. False if it is lost. @internal */
  async renewNow(lease: KeptLease): Promise<boolean> {
    await this.#renew([lease], this.now());
    return this.#leases.has(lease);
  }

  /** Stops renewing a lease. @internal */
  release(lease: KeptLease): void {
    this.#leases.delete(lease);
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
    // Two ticks per third: a lease that arrives just after a tick is still renewed before half its length. All leases
    // share one timer, so it belongs to none of their tenants.
    this.#timer = outsideOfAnyFrame(() => setTimeout(() => void this.#tick(), this.#shortestMs / 6));
    this.#timer.unref();
  }

  async #tick(): Promise<void> {
    this.#timer = undefined;
    // Not while a renewal is under way, unless its answer is overdue: one that Postgres never answers must not be the last.
    const mayRenew =
      this.#renewingSince === undefined || ageMs(this.#renewingSince, this.now()) >= this.#shortestMs / 3;
    if (mayRenew) await this.#renewDue();
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
    // Awaited for no longer than the shortest lease: with Postgres out of reach, the loop must still notice expired
    // leases.
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
      rows = await this.database.run(
        RENEW.with({
          tenantId: leases.map((lease) => lease.tenantId),
          operationKey: leases.map((lease) => lease.operationKey),
          token: leases.map((lease) => lease.token),
          leaseMs: leases.map((lease) => lease.leaseMs),
        }),
      );
    } catch {
      // Postgres is out of reach, and no lease is known to be lost yet. #dropExpired decides when it is.
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

class HeldLease implements LeaseHandle {
  constructor(
    private readonly lease: KeptLease,
    /** When the renewal was sent that was answered last. */
    public renewedAt: LeaseTime,
    private readonly keeper: LeaseKeeper,
    private readonly now: () => LeaseTime,
  ) {}

  get #usableMs(): number {
    return this.lease.leaseMs * (1 - NEARLY);
  }

  isNearlyOver(): boolean {
    return isNearlyOver(this.lease.leaseMs, this.renewedAt, this.now());
  }

  hasRunOut(): boolean {
    return ageMs(this.renewedAt, this.now()) >= this.#usableMs;
  }

  async confirm(): Promise<boolean> {
    return (await this.keeper.renewNow(this.lease)) && !this.isNearlyOver();
  }

  release(): void {
    this.keeper.release(this.lease);
  }
}
