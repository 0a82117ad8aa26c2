import type { EntityManager } from 'typeorm';
import type { Claim, ClaimAnswer, VanishedAttempt } from '../../ledger/claim/claim.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import type { RecordedResult } from '../../ledger/record/kept-result.js';
import type { FailureRecord, Recorded } from '../../ledger/record/outcome.store.js';

/**
 * What an attempt stands on: where its right to run comes from, and where its end is written. One for each attempt.
 *
 * Two things can be it. A lease is claimed in one commit and its end is recorded in another, with the effect in between,
 * outside of Postgres. A transaction holds claim, the handler's writes and the end, all of them or none.
 */
export interface Ground {
  /** Wins the operation, or says why not. Nothing is left of a claim that was not won. */
  claim(): Promise<GroundAnswer>;
  /** Whether the claim is over, or so nearly that nothing may be begun under it. */
  readonly isNearlyOver: boolean;
  /** Whether to give the claim back takes back what the handler did, so that no doubt is left. */
  readonly takesBack: boolean;
  /** Records the attempt that a claim took over. */
  takeOver(claim: Claim, vanished: VanishedAttempt): Promise<void>;
  /** Right before the handler: the transaction that it writes through, where there is one. */
  open(timeoutMs: number): Promise<EntityManager | undefined>;
  /** The handler was given up, and may still be writing: nothing that it writes from here on counts. */
  abandon(): Promise<void>;
  /** Records the result, and with it what the handler enqueued. */
  complete(
    claim: Claim,
    result: RecordedResult,
    followUps: readonly RequestedOperation[],
    retentionMs: number,
  ): Promise<Completion>;
  /**
   * Takes back what the handler has written, and answers with the claim under which its failure is to be recorded: the
   * same one, or, where that is gone with its transaction, another.
   */
  revert(claim: Claim): Promise<GroundAnswer>;
  /** Records a failure, or an end without a handler. */
  fail(claim: Claim, record: FailureRecord): Promise<Recorded>;
  /**
   * Gives the claim back as if the attempt had not been started. `isDoubtful`: its effect may have happened. `waitMs`: for
   * how long nobody is to claim it.
   */
  release(claim: Claim, isDoubtful: boolean, waitMs?: number): Promise<void>;
  /** Gives back what may have been won, where the handler was not called: a claim that nobody used is no doubt. */
  forgo(): void;
  /** Lets go of whatever is still held. */
  leave(): Promise<void>;
}

/** What a claim is answered with. `no_connection`: handlers' transactions have all connections. */
export type GroundAnswer = ClaimAnswer | { readonly kind: 'no_connection' };

/**
 * How recording a result ended. `lost`: the lease went to another worker. `conflicted`: another transaction was in the way,
 * and nothing of the attempt is left. `refused`: Postgres did not take it, and nothing of the attempt is left.
 */
export type Completion =
  Recorded | { readonly kind: 'conflicted' } | { readonly kind: 'refused'; readonly error: unknown };
