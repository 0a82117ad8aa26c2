import { DelayedError, type Job, RateLimitError } from 'bullmq';
import { wasMoved } from '../../bullmq/hand-back.js';
import {
  BACKOFF_TYPE,
  withDelay,
  dropOldStacks,
  errorForBullmq,
  finalErrorForBullmq,
} from '../../bullmq/error-for-bullmq.js';
import { messageOf } from '../../operation/thrown.js';
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
    case 'refused':
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

/**
 * Tells BullMQ how a delivery ended: by returning, or by throwing the error class that BullMQ acts on. No other code
 * uses these classes.
 *
 * If the process is killed before BullMQ is told, the job is delivered again and the ledger answers from what it
 * recorded. The same happens when BullMQ refuses: a refusal must not fail a job whose operation goes on.
 */
export function acknowledge(job: Job, token: string | undefined, ack: Ack): unknown {
  // The handler has moved the job, so BullMQ can do nothing else with it now. The ledger answers at its next delivery.
  if (wasMoved(job)) throw new DelayedError();
  switch (ack.kind) {
    case 'done':
      return ack.result;
    case 'retry':
      return retry(job, token, ack);
    case 'defer':
      return defer(job, token, ack.delayMs);
    case 'fail':
      dropOldStacks(job);
      throw finalErrorForBullmq(ack.error);
    case 'hand_back':
      throw new RateLimitError();
    default:
      return ack satisfies never;
  }
}

/** Whether BullMQ would deliver a failed job again with the library's delay. Other producers may have set no attempts. */
function carriesRetry(job: Job): boolean {
  const { attempts = 1, backoff } = job.opts;
  return job.attemptsMade + 1 < attempts && typeof backoff === 'object' && backoff.type === BACKOFF_TYPE;
}

async function retry(
  job: Job,
  token: string | undefined,
  { error, delayMs }: Extract<Ack, { kind: 'retry' }>,
): Promise<never> {
  if (carriesRetry(job)) {
    dropOldStacks(job);
    throw withDelay(errorForBullmq(error), delayMs);
  }
  try {
    // A deferred job shows no error.
    await job.log(`Attempt failed, next one in ${delayMs} ms: ${messageOf(error)}`);
  } catch {
    // The line is only for people; the ledger has the error in any case.
  }
  return defer(job, token, delayMs);
}

/**
 * Defers the job. If BullMQ does not take it back, a job that carries the library's delay is failed with that delay.
 * Any other error would fail a job without it for good, so that job is left with its worker, which no longer renews its
 * lock: BullMQ finds it stalled and delivers it again, later than asked.
 */
async function defer(job: Job, token: string | undefined, delayMs: number): Promise<never> {
  try {
    await job.moveToDelayed(Date.now() + Math.max(1, Math.ceil(delayMs)), token);
  } catch (error) {
    if (carriesRetry(job)) throw withDelay(errorForBullmq(error), delayMs);
  }
  throw new DelayedError();
}
