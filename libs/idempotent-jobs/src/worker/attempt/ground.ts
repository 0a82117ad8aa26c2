import { Injectable } from '@nestjs/common';
import type { EntityManager } from 'typeorm';
import type { Claim, ClaimAnswer, VanishedAttempt } from '../../ledger/claim/claim.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import type { RecordedResult } from '../../ledger/record/recorded-result.js';
import { type FailureRecord, OutcomeStore } from '../../ledger/record/outcome.store.js';
import { Exchange, type Recorded } from '../../ledger/claim/exchange.js';
import { ClaimStore } from '../../ledger/claim/claim.store.js';
import { OptimisticStore } from '../../ledger/claim/optimistic.store.js';
import { LeaseKeeper } from '../../ledger/claim/lease-keeper.js';
import { UnusedClaims } from '../../ledger/claim/unused-claims.js';
import { Database } from '../../ledger/postgres/database.js';
import { FollowUps } from './follow-ups.js';
import type { OperationRun } from './operation-run.js';

/** What grounds need of their application. */
@Injectable()
export class GroundServices {
  constructor(
    readonly claims: ClaimStore,
    readonly optimistic: OptimisticStore,
    readonly exchange: Exchange,
    readonly leases: LeaseKeeper,
    readonly outcomes: OutcomeStore,
    readonly followUps: FollowUps,
    readonly unused: UnusedClaims,
    readonly database: Database,
  ) {}
}

/**
 * What an attempt stands on: it gives the right to run, and records the end. Each attempt has its own.
 *
 * There are three kinds. A lease is claimed in one commit and its end is recorded in another; the effect happens in
 * between, outside of Postgres. A transaction holds the claim, the handler's writes and the end: all of them or none. An
 * optimistic attempt claims nothing, and only its end is recorded.
 */
export interface Ground {
  /** The run whose attempt stands on it. */
  readonly run: OperationRun;
  /** Claims the operation, or says why it cannot be claimed. A claim that was not won leaves nothing behind. */
  claim(): Promise<GroundAnswer>;
  /** Whether the claim is over, or so nearly over that nothing may be begun under it. */
  readonly isNearlyOver: boolean;
  /** Whether releasing the claim also undoes what the handler did, so that no doubt is left. */
  readonly takesBack: boolean;
  /** Records the attempt that a claim took over. */
  takeOver(claim: Claim, vanished: VanishedAttempt): Promise<void>;
  /** Called right before the handler. Gives the transaction that the handler writes through, if there is one. */
  open(timeoutMs: number): Promise<EntityManager> | undefined;
  /** Called when the handler is given up. It may still be writing: nothing that it writes from now on counts. */
  abandon(): Promise<void> | undefined;
  /** Records the result together with what the handler enqueued. */
  complete(
    claim: Claim,
    result: RecordedResult,
    followUps: readonly RequestedOperation[],
  ): Promise<CompletionAnswer>;
  /**
   * Undoes what the handler has written, and gives the claim under which its failure is to be recorded: the same claim,
   * or a new one if the first is gone with its transaction.
   */
  revert(claim: Claim): Promise<GroundAnswer>;
  /** Records a failure, or an end without a handler. */
  fail(claim: Claim, record: FailureRecord): Promise<Recorded>;
  /** Releases the claim as if the attempt had not been started. */
  release(claim: Claim, release?: Release): Promise<void>;
  /** Releases a claim that may have been won although the handler was not called. An unused claim is no doubt. */
  forgo(): void;
  /** Releases what the attempt still holds. */
  leave(): Promise<void> | undefined;
}

/** How a claim is released. */
export interface Release {
  /** Whether the effect of its attempt may have happened. */
  readonly isDoubtful?: boolean;
  /** For how long the operation cannot be claimed, in ms. Undefined when it can be claimed at once. */
  readonly waitMs?: number | undefined;
}

/** The answer to a claim. `no_connection`: handlers' transactions use all connections. */
export type GroundAnswer = ClaimAnswer | { readonly kind: 'no_connection' };

/**
 * How recording a result ended.
 *
 * - `lost`: the lease went to another worker.
 * - `conflicted`: another transaction was in the way, and nothing of the attempt is left.
 * - `beaten`: another outcome was first; `answer` says what the operation is now.
 * - `refused`: Postgres did not accept it, and nothing of the attempt is left.
 */
export type CompletionAnswer =
  | Recorded
  | { readonly kind: 'conflicted' }
  | { readonly kind: 'beaten'; readonly answer: Exclude<GroundAnswer, { kind: 'acquired' }> }
  | { readonly kind: 'refused'; readonly error: unknown };
