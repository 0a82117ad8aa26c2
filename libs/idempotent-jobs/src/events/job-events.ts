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

/** What every event tells about the job it is about. */
export interface JobEventSubject {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly tenantId?: string;
  readonly operationKey?: string;
  /** The key of the operation whose handler runs it as a step; undefined: it is no step. */
  readonly stepOf?: string;
}

/** An attempt's share of an event. */
interface AttemptFacts {
  readonly attempt: number;
  readonly durationMs: number;
}

/** How an attempt failed. */
interface FailureFacts extends AttemptFacts {
  readonly failure: FailureKind;
  /** Whether the service asked for less. */
  readonly isThrottled?: boolean | undefined;
  /** The message of what was thrown, at most 2,000 characters. */
  readonly error: string;
  /** What the processor depends on. */
  readonly dependency?: string | undefined;
}

/** Why a delivery was put off, as one of a few words; see {@link DeferralCause} and {@link RejectionCause}. */
export type DeferralReason = Exclude<DeferralCause, 'held'> | RejectionCause;

/**
 * What can happen to a job, as one closed set. Durations in milliseconds. Never a payload or a result. `enqueued` is told
 * when the row is written, which the caller's transaction may still take back; follow-ups and durability `queue` tell
 * nothing before their first delivery.
 */
export type JobEvent =
  | (JobEventSubject &
      (
        | { readonly kind: 'enqueued'; readonly isDuplicate: boolean }
        /** Somebody asked for another operation under its key, and was refused. `jobId` is empty: there is no job. */
        | { readonly kind: 'conflict_refused' }
        /** `waitMs`: with the first attempt, since when the job could have been run, by the clock of whoever enqueued it. */
        | {
            readonly kind: 'started';
            readonly attempt: number;
            readonly runId: string;
            readonly waitMs?: number;
          }
        /**
         * `endToEndMs`: since when the job could have been run. `droppedResult`: why a result could not be kept; the
         * operation completed without one. `degraded`: whose fallback answered in place of which dependency, and why.
         */
        | ({
            readonly kind: 'completed';
            readonly endToEndMs: number;
            readonly droppedResult?: string;
            readonly degraded?: string;
          } & AttemptFacts)
        | { readonly kind: 'replayed' }
        /** `reason`: why the failure was classified so, e.g. `http_503`. */
        | ({
            readonly kind: 'retrying';
            readonly delayMs: number;
            readonly reason: string;
            readonly decision: RetryDecision;
          } & FailureFacts)
        /** `delayMs`: until the service is asked; undefined: a person has to find out, and there is a dead letter. */
        | ({
            readonly kind: 'in_doubt';
            readonly reason: string;
            readonly delayMs?: number | undefined;
            /** The attempt vanished with its worker. */
            readonly isVanished?: true;
          } & FailureFacts)
        /** The service was asked whether the effect of that attempt happened. `delayMs`: until it is asked again. */
        | {
            readonly kind: 'reconciled';
            readonly attempt: number;
            readonly verdict: 'applied' | 'not_applied' | 'unknown';
            readonly reason?: string;
            readonly delayMs?: number | undefined;
          }
        /**
         * A dead letter was written. `attempt` 0: no operation was given up, but a delivery; with `isFollowUp`, not even
         * that, but what a handler had enqueued under a key that belongs to another request.
         */
        | ({
            readonly kind: 'dead';
            readonly reason: DeadLetterReason;
            readonly failureCode: string;
            readonly isFollowUp?: true;
          } & FailureFacts)
        /**
         * A delivery that was not run, because there is nothing left to do: its operation was given up or is in doubt
         * already, or it has had its own dead letter before (`buried`).
         */
        | { readonly kind: 'refused'; readonly because: 'dead' | 'in_doubt' | 'buried' }
        /**
         * The handler put its job off by BullMQ's own means, such as `moveToDelayed()`. `times`: how often in a row, in
         * this process, without an attempt that ended.
         */
        | { readonly kind: 'handed_back'; readonly times: number }
        | {
            readonly kind: 'deferred';
            readonly delayMs: number;
            readonly because: DeferralReason;
            readonly reason: string;
            readonly dependency?: string | undefined;
          }
        | { readonly kind: 'taken_over'; readonly attempt: number; readonly from: string | undefined }
        | { readonly kind: 'abandoned'; readonly attempt: number; readonly by: AbandonedBy }
        | { readonly kind: 'late_result_discarded'; readonly how: 'returned' | 'threw' }
        | { readonly kind: 'fence_rejected'; readonly attempt: number }
        /** Somebody closed a dead letter. `redriven`, `not_applied`: its operation runs again. */
        | {
            readonly kind: 'letter_closed';
            readonly letterId: string;
            readonly as: DeadLetterResolution;
            readonly actor: string;
          }
        /**
         * A message on a dead-letter queue told nobody: it names no letter (`malformed`), one that the ledger does not
         * have (`unknown`), or one that is announced on another queue (`elsewhere`). `queue` is the dead-letter queue.
         */
        | { readonly kind: 'letter_dropped'; readonly because: DropReason }
      ))
  | DependencyEvent;

/** What can happen to a dependency, in a job or outside of any. */
export type DependencyEvent = Partial<JobEventSubject> & { readonly dependency: string } &
  /**
   * The circuit of a key names the operation whose call opened it. `isOneTenantsFault`: a circuit without a key opened on the
   * failures of one tenant alone, and holds back others that were answered.
   */
  (
    | {
        readonly kind: 'circuit_changed';
        readonly state: CircuitStateName;
        readonly isOneTenantsFault?: boolean;
      }
    /** A call of it, or an attempt of a processor that depends on it, took too long. */
    | { readonly kind: 'dependency_timeout' }
    /** A retry was not let through: retries were too large a share of all calls. */
    | { readonly kind: 'retry_budget_denied' }
    /** Its fallback answered in its place. */
    | { readonly kind: 'fallback_used'; readonly reason: FallbackReason }
  );

/**
 * The one stream of what happens, which logs, metrics and your own code subscribe to. Delivered synchronously, on the
 * job's own path: a subscriber must be quick, and one that throws is dropped out of the event, not the job.
 */
@Injectable()
export class JobEvents {
  readonly #subscribers = new Set<(event: JobEvent) => void>();

  /** Whether anybody listens, for those who would rather not make an event in vain. */
  get isObserved(): boolean {
    return this.#subscribers.size > 0;
  }

  /** Returns how to unsubscribe. */
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
