import type { AttemptResult } from '../attempt/attempt-result.js';
import type { NextStep } from '../rules/decide.js';

/** What BullMQ is told about a delivery. Every delivery ends in exactly one of these. */
export type Ack =
  /** The job is done. */
  | { readonly kind: 'done'; readonly result: unknown }
  /** The attempt failed; BullMQ shows the error and delivers the job again after the delay. */
  | { readonly kind: 'retry'; readonly error: unknown; readonly delayMs: number }
  /** Deliver the job again later; nothing failed and no attempt is spent. */
  | { readonly kind: 'defer'; readonly delayMs: number }
  /** The job has failed for good. */
  | { readonly kind: 'fail'; readonly error: unknown }
  /** The handler has handed the job back by BullMQ's own means. */
  | { readonly kind: 'hand_back' };

/** What BullMQ is told about how a delivery ended. Pure. */
export function ackOf(result: AttemptResult, random: () => number): Ack {
  switch (result.kind) {
    case 'completed':
    case 'replayed':
      return { kind: 'done', result: result.result };
    case 'failed':
      return ofDecision(result.nextStep, result.error);
    case 'conflict':
    case 'dead':
    case 'in_doubt':
    case 'expired':
    case 'unstorable':
      return { kind: 'fail', error: result.error };
    case 'deferred':
      // Up to a tenth of jitter, so that deliveries that wait for one lease do not come back in one moment. At most a
      // second: that is enough.
      return {
        kind: 'defer',
        delayMs: result.delayMs + random() * Math.min(result.delayMs / 10, MAX_JITTER_MS),
      };
    case 'handed_back':
      return { kind: 'hand_back' };
    default:
      return result satisfies never;
  }
}

function ofDecision(decision: NextStep, error: unknown): Ack {
  if (decision.status === 'retrying') return { kind: 'retry', error, delayMs: decision.delayMs };
  // The service is asked at the next delivery, which costs no attempt.
  if (decision.status === 'in_doubt' && decision.reconcileInMs !== undefined)
    return { kind: 'defer', delayMs: decision.reconcileInMs };
  return { kind: 'fail', error };
}

const MAX_JITTER_MS = 1000;
