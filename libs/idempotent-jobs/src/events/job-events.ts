import { Injectable } from '@nestjs/common';
import type {
  DeferralCause,
  DeadLetterResolution,
  DeadLetterReason,
  DropReason,
  FailureKind,
  RetryDecision,
  AbandonedBy,
  FallbackReason,
  RejectionCause,
  CircuitStateName,
} from '../operation/reasons.js';

/** The job that an event is about. */
export interface JobEventSubject {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly tenantId?: string;
  readonly operationKey?: string;
  /** For a step: the key of the operation whose handler runs it. Undefined for anything else. */
  readonly stepOf?: string;
}

/** The attempt that an event is about. */
interface AttemptFacts {
  readonly attempt: number;
  readonly durationMs: number;
}

/** How an attempt failed. */
interface FailureFacts extends AttemptFacts {
  readonly failure: FailureKind;
  /** Why the failure was classified so, e.g. `http_503`. */
  readonly failureCode: string;
  /** Whether the service asked for fewer calls. */
  readonly isThrottled?: boolean | undefined;
  /** The message of what was thrown, at most 2,000 characters. */
  readonly error: string;
  /** The dependency of the processor. */
  readonly dependency?: string | undefined;
}

/** Why a delivery was deferred, from a closed list; see {@link DeferralCause} and {@link RejectionCause}. */
export type DeferralReason = Exclude<DeferralCause, 'rejected'> | RejectionCause;

/**
 * Everything that can happen to a job, as a closed set. Durations are in milliseconds. No event contains a payload or a
 * result. `enqueued` is emitted when the row is written, which the caller's transaction may still roll back. Follow-ups
 * and durability `queue` emit nothing before their first delivery.
 */
export type JobEvent =
  | (JobEventSubject &
      (
        | { readonly kind: 'enqueued'; readonly isDuplicate: boolean }
        /** A request for another operation under its key was refused. `jobId` is empty, because there is no job. */
        | { readonly kind: 'conflict_refused' }
        /** `waitMs`, on the first attempt only: the time since the job could first run, by the producer's clock. */
        | {
            readonly kind: 'started';
            readonly attempt: number;
            readonly runId: string;
            readonly waitMs?: number;
          }
        /**
         * `endToEndMs`: the time since the job could first run. `droppedResult`: why the result could not be kept; the
         * operation completed without one. `degraded`: for which dependency a fallback answered, whose, and why.
         */
        | ({
            readonly kind: 'completed';
            readonly endToEndMs: number;
            readonly droppedResult?: string;
            readonly degraded?: string;
          } & AttemptFacts)
        | { readonly kind: 'replayed' }
        | ({
            readonly kind: 'retrying';
            readonly delayMs: number;
            readonly decision: RetryDecision;
          } & FailureFacts)
        /** `delayMs`: the time until the service is asked. Undefined when a dead letter leaves it to a person. */
        | ({
            readonly kind: 'in_doubt';
            readonly delayMs?: number | undefined;
            /** The attempt vanished with its worker. */
            readonly isVanished?: true;
          } & FailureFacts)
        /**
         * The service was asked whether the effect of that attempt happened. `delayMs`: the time until it is asked again.
         */
        | {
            readonly kind: 'reconciled';
            readonly attempt: number;
            readonly verdict: 'applied' | 'not_applied' | 'unknown';
            /** Why the service could not tell, or who told. */
            readonly detail?: string;
            readonly delayMs?: number | undefined;
          }
        /**
         * A dead letter was written. With `attempt` 0, a delivery was given up and not an operation; with `isFollowUp`, it
         * was something that a handler had enqueued under a key that belongs to another request.
         */
        | ({
            readonly kind: 'dead';
            readonly reason: DeadLetterReason;
            readonly isFollowUp?: true;
          } & FailureFacts)
        /**
         * A delivery was not run, because nothing is left to do: its operation was given up or is in doubt already, or the
         * delivery itself has a dead letter (`dead_lettered`).
         */
        | { readonly kind: 'refused'; readonly reason: 'dead' | 'in_doubt' | 'dead_lettered' }
        /**
         * The handler deferred its job by BullMQ's own means, such as `moveToDelayed()`. `times`: how often in a row, in
         * this process, without an attempt that ended.
         */
        | { readonly kind: 'handed_back'; readonly times: number }
        | {
            readonly kind: 'deferred';
            readonly delayMs: number;
            readonly cause: DeferralReason;
            /** What happened, in a sentence. */
            readonly detail: string;
            readonly dependency?: string | undefined;
          }
        | { readonly kind: 'taken_over'; readonly attempt: number; readonly from: string | undefined }
        | { readonly kind: 'abandoned'; readonly attempt: number; readonly by: AbandonedBy }
        | { readonly kind: 'late_result_discarded'; readonly how: 'returned' | 'threw' }
        | { readonly kind: 'fence_rejected'; readonly attempt: number }
        /** A person or a webhook closed a dead letter. After `redriven` and `not_applied` its operation runs again. */
        | {
            readonly kind: 'letter_closed';
            readonly letterId: string;
            readonly as: DeadLetterResolution;
            readonly actor: string;
          }
        /**
         * A message on a dead-letter queue was dropped without telling a handler: it names no letter (`malformed`), one
         * that the ledger does not have (`unknown`), or one that belongs to another queue (`elsewhere`). `queue` is the
         * dead-letter queue.
         */
        | { readonly kind: 'letter_dropped'; readonly reason: DropReason }
      ))
  | DependencyEvent;

/** What can happen to a dependency, inside or outside of a job. */
export type DependencyEvent = Partial<JobEventSubject> & { readonly dependency: string } &
  /**
   * The event of a circuit with a key names the operation whose call opened it. `isOneTenantsFault`: a circuit without a
   * key opened on the failures of one tenant alone, and now rejects calls of tenants that were answered.
   */
  (
    | {
        readonly kind: 'circuit_changed';
        readonly state: CircuitStateName;
        readonly isOneTenantsFault?: boolean;
      }
    /** A call of it, or an attempt of a processor that depends on it, took too long. */
    | { readonly kind: 'dependency_timeout' }
    /** A retry was rejected, because retries were too large a share of all calls. */
    | { readonly kind: 'retry_budget_denied' }
    /** A fallback answered in place of the dependency. */
    | { readonly kind: 'fallback_used'; readonly reason: FallbackReason }
  );

/**
 * The one stream of events, which logs, metrics and your own code subscribe to. Events are delivered synchronously, on the
 * job's own path: a subscriber must be quick, and the error of one that throws is ignored.
 */
@Injectable()
export class JobEvents {
  readonly #subscribers = new Set<(event: JobEvent) => void>();

  /** Whether there is a subscriber, so that no event needs to be made in vain. */
  get isObserved(): boolean {
    return this.#subscribers.size > 0;
  }

  /** Returns a function that unsubscribes. */
  subscribe(subscriber: (event: JobEvent) => void): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  emit(event: JobEvent): void {
    for (const subscriber of this.#subscribers) {
      try {
        subscriber(event);
      } catch {
        // An observer's fault must not become the job's.
      }
    }
  }
}
