import { DelayedError, type Job, RateLimitError } from 'bullmq';
import { wasMoved } from '../../bullmq/hand-back.js';
import { BACKOFF_TYPE, carryDelay } from '../../bullmq/retry-delay.js';
import { dropOldStacks, errorForBullmq, finalErrorForBullmq } from '../../bullmq/error-for-bullmq.js';
import { messageOf } from '../../operation/message-of.js';
import type { Ack } from './ack.js';

/**
 * Tells BullMQ how a delivery ended: by returning, or by throwing the error class that BullMQ acts on. The only place
 * that knows them.
 *
 * Killed before BullMQ has heard it, the job is delivered again and the ledger answers from what it recorded. The same
 * goes for what BullMQ refuses: none of its refusals may fail a job whose operation goes on.
 */
export async function acknowledge(job: Job, token: string | undefined, ack: Ack): Promise<unknown> {
  // Its handler has put it elsewhere, and BullMQ could do nothing else with it now. The ledger answers when it comes.
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

/** Whether BullMQ would deliver the job again with our delay: producers of another kind may have set no attempts. */
function carriesRetry(job: Job): boolean {
  const { attempts = 1, backoff } = job.opts;
  return job.attemptsMade + 1 < attempts && typeof backoff === 'object' && backoff.type === BACKOFF_TYPE;
}

async function retry(
  job: Job,
  token: string | undefined,
  { error, delayMs }: Extract<Ack, { kind: 'retry' }>,
): Promise<never> {
  if (!carriesRetry(job)) return deferFailed(job, token, error, delayMs);
  dropOldStacks(job);
  const told = errorForBullmq(error);
  carryDelay(told, delayMs);
  throw told;
}

/** The job's log keeps what a failed attempt would have shown, if BullMQ takes it. */
async function deferFailed(
  job: Job,
  token: string | undefined,
  error: unknown,
  delayMs: number,
): Promise<never> {
  try {
    await job.log(`Attempt failed, next one in ${delayMs} ms: ${messageOf(error)}`);
  } catch {
    // A line for people, whose place is the ledger in any case.
  }
  return defer(job, token, delayMs);
}

/**
 * Where BullMQ does not take the job back, one that carries our delay is failed with it. Any other is left with its worker,
 * which no longer renews its lock: BullMQ finds it stalled and delivers it again, later than asked. Any other error would
 * fail it for good.
 */
async function defer(job: Job, token: string | undefined, delayMs: number): Promise<never> {
  try {
    await job.moveToDelayed(Date.now() + Math.max(1, Math.ceil(delayMs)), token);
  } catch (error) {
    if (carriesRetry(job)) {
      const told = errorForBullmq(error);
      carryDelay(told, delayMs);
      throw told;
    }
  }
  throw new DelayedError();
}
