import type { Claim } from '../../ledger/claim/claim.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import type { RecordedResult } from '../../ledger/record/recorded-result.js';
import { wasStartedBefore } from '../identify/earlier-starts.js';
import type { Completion, GroundAnswer, Release } from './ground.js';
import { LeaseGround } from './lease.ground.js';
import { claimRequestOf } from './operation-run.js';
import { claimPatienceMs, withRetry } from './with-retry.js';

/**
 * No claim at all, for the first attempt of an operation whose effect may be repeated: its first recorded outcome counts. What
 * is not that simple gets a lease after all: a failure, an operation of which anything is known, and a job that was started
 * before, so that one that kills its workers is found.
 *
 * If the process is killed before the outcome is recorded, nothing of the attempt exists.
 */
export class OptimisticGround extends LeaseGround {
  #isClaimed = false;

  override async claim(): Promise<GroundAnswer> {
    const { run, services } = this;
    const request = claimRequestOf(run);
    const look = await withRetry(claimPatienceMs(request.rules.leaseMs), () =>
      services.optimistic.look(request),
    );
    if (look.kind === 'replay') return look;
    const wasStarted = run.job !== undefined && wasStartedBefore(run.job);
    if (look.kind === 'untouched' && !wasStarted) return { kind: 'acquired', claim: look.claim };
    if (look.kind === 'unsure' && look.isLate && (look.wasPutAgain || wasStarted))
      await services.optimistic.noteVanished(request);
    this.#isClaimed = true;
    return super.claim();
  }

  override async complete(
    claim: Claim,
    result: RecordedResult,
    followUps: readonly RequestedOperation[],
  ): Promise<Completion> {
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
    const answer = await super.claim();
    if (answer.kind !== 'acquired' || !answer.claim.mustReconcile) return answer;
    // Another attempt has left a doubt meanwhile, which the next delivery asks about.
    super.forgo();
    return CHANGING;
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
