import type { Claim } from '../../ledger/claim/claim.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import type { RecordedResult } from '../../ledger/record/recorded-result.js';
import { isNearlyOver, leaseTime } from '../../ledger/claim/lease-keeper.js';
import { RowLockedError } from '../../ledger/claim/exchange.js';
import { wasStartedBefore } from '../identify/earlier-starts.js';
import type { CompletionAnswer, GroundAnswer, Release } from './ground.js';
import { LeaseGround } from './lease.ground.js';
import { claimRequestOf } from './operation-run.js';
import { claimPatienceMs, recordPatienceMs, withRetry } from './with-retry.js';

/**
 * No claim at all, for the first attempt of an operation whose effect may be repeated at any time: the first recorded outcome
 * counts. What is not that simple gets a lease after all: a failure, an operation of which anything is known, and a job that
 * was started before, so that a job that kills its workers is found.
 *
 * If the process is killed before the outcome is recorded, nothing of the attempt exists.
 */
export class OptimisticGround extends LeaseGround {
  #isClaimed = false;

  override async claim(): Promise<GroundAnswer> {
    const { run, services } = this;
    const request = claimRequestOf(run);
    const { leaseMs } = request.rules;
    const sentAt = leaseTime();
    const look = await withRetry(claimPatienceMs(leaseMs), () => services.optimistic.look(request));
    if (look.kind === 'replay') return look;
    const wasStarted = run.job !== undefined && wasStartedBefore(run.job);
    // What was seen long ago says nothing.
    if (look.kind === 'untouched' && !wasStarted && !isNearlyOver(leaseMs, sentAt))
      return { kind: 'acquired', claim: look.claim };
    this.#isClaimed = true;
    return super.claim();
  }

  override async complete(
    claim: Claim,
    result: RecordedResult,
    followUps: readonly RequestedOperation[],
  ): Promise<CompletionAnswer> {
    if (this.#isClaimed) return super.complete(claim, result, followUps);
    const { outcomes, claims } = this.services;
    const request = claimRequestOf(this.run);
    const recorded = await this.recordWith(followUps, (connection) =>
      outcomes.completeFirst(request, claim, result, connection),
    );
    if (recorded === 'recorded') return recorded;
    const seen = await claims.peek(request);
    return { kind: 'beaten', answer: seen.kind === 'runnable' ? CHANGING : seen };
  }

  /** Claims the operation, so that the failure is recorded like any other. */
  override async revert(claim: Claim): Promise<GroundAnswer> {
    if (this.#isClaimed) return super.revert(claim);
    this.#isClaimed = true;
    const request = { ...claimRequestOf(this.run), beganAt: claim.startedAt };
    return withRetry(recordPatienceMs(request.rules.leaseMs), async () => {
      const answer = await super.claimAs(request);
      if (answer.kind === 'locked') throw new RowLockedError();
      return answer;
    });
  }

  override async release(claim: Claim, release?: Release): Promise<void> {
    if (this.#isClaimed) await super.release(claim, release);
  }

  override forgo(): void {
    if (this.#isClaimed) super.forgo();
  }
}

/** The next delivery sees what has become of the operation. */
const CHANGING = { kind: 'busy', leaseLeftMs: 0 } as const;
