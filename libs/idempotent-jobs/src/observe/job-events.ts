import { Injectable } from '@nestjs/common';
import type { AbandonReason } from '../execute/attempt.js';
import type { DeadLetterResolution } from '../dead-letter/dead-letter.js';
import type { DeadLetterReason } from '../dead-letter/letter.js';

/** What every event tells about the job it is about. */
export interface JobEventSubject {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly tenantId?: string;
  readonly operationKey?: string;
}

/** An attempt's share of an event. */
interface AttemptFacts {
  readonly attempt: number;
  readonly durationMs: number;
}

/**
 * What can happen to a job, as one closed set. Durations in milliseconds. Never a payload or a result. `enqueued` is told
 * when the row is written, which the caller's transaction may still take back; follow-ups and durability `queue` tell
 * nothing before their first delivery.
 */
export type JobEvent = JobEventSubject &
  (
    | { readonly kind: 'enqueued'; readonly isDuplicate: boolean }
    | { readonly kind: 'started'; readonly attempt: number; readonly workerId: string }
    /** `droppedResult`: why a result could not be kept; the operation completed without one. */
    | ({ readonly kind: 'completed'; readonly droppedResult?: string } & AttemptFacts)
    | { readonly kind: 'replayed' }
    | ({
        readonly kind: 'retrying';
        readonly delayMs: number;
        readonly reason: string;
        readonly error: string;
      } & AttemptFacts)
    /** `delayMs`: until the service is asked; undefined: a person has to find out. */
    | {
        readonly kind: 'in_doubt';
        readonly attempt: number;
        readonly reason: string;
        readonly error: string;
        readonly delayMs?: number | undefined;
      }
    /** The service was asked whether the effect of that attempt happened. `delayMs`: until it is asked again. */
    | {
        readonly kind: 'reconciled';
        readonly attempt: number;
        readonly verdict: 'applied' | 'not_applied' | 'unknown';
        readonly reason?: string;
        readonly delayMs?: number | undefined;
      }
    | {
        readonly kind: 'dead';
        readonly attempt: number;
        readonly reason: DeadLetterReason;
        readonly error: string;
      }
    | { readonly kind: 'deferred'; readonly delayMs: number; readonly reason: string }
    | { readonly kind: 'taken_over'; readonly attempt: number; readonly from: string | undefined }
    | { readonly kind: 'abandoned'; readonly attempt: number; readonly why: AbandonReason }
    | { readonly kind: 'late_result_discarded'; readonly how: 'returned' | 'threw' }
    | { readonly kind: 'fence_rejected'; readonly attempt: number }
    /** Somebody closed a dead letter. `redriven`, `not_applied`: its operation runs again. */
    | {
        readonly kind: 'letter_closed';
        readonly letterId: string;
        readonly as: DeadLetterResolution;
        readonly actor: string;
      }
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
