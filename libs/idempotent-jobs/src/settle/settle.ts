import { messageOf } from '../operation/message-of.js';
import { DelayedError, type Job, UnrecoverableError } from 'bullmq';
import { BACKOFF_TYPE, carryDelay } from '../bullmq/retry-carrier.js';
import type { Settlement } from './settlement.js';

/**
 * Tells BullMQ how a delivery ended: by returning, or by throwing the error class that BullMQ acts on. The only place
 * that knows them.
 *
 * Killed before BullMQ has heard it, the job is delivered again and the ledger answers from what it recorded.
 */
export function settle(job: Job, token: string | undefined, settlement: Settlement): unknown {
  switch (settlement.kind) {
    case 'ack':
      return settlement.result;
    case 'retry':
      return carriesRetry(job)
        ? retry(settlement.error, settlement.delayMs)
        : deferFailed(job, token, settlement);
    case 'defer':
      return defer(job, token, settlement.delayMs);
    case 'fail':
      throw unrecoverable(settlement.error);
    case 'hand_back':
      throw settlement.error;
    default:
      return settlement satisfies never;
  }
}

/** Whether BullMQ would deliver the job again with our delay: producers of another kind may have set no attempts. */
function carriesRetry(job: Job): boolean {
  const { attempts = 1, backoff } = job.opts;
  return job.attemptsMade + 1 < attempts && typeof backoff === 'object' && backoff.type === BACKOFF_TYPE;
}

function retry(error: unknown, delayMs: number): never {
  const thrown = error instanceof Error ? error : new Error(messageOf(error));
  carryDelay(thrown, delayMs);
  throw thrown;
}

/** The job's log keeps what a failed attempt would have shown. */
async function deferFailed(
  job: Job,
  token: string | undefined,
  { error, delayMs }: { error: unknown; delayMs: number },
): Promise<never> {
  await job.log(`Attempt failed, next one in ${delayMs} ms: ${messageOf(error)}`);
  return defer(job, token, delayMs);
}

async function defer(job: Job, token: string | undefined, delayMs: number): Promise<never> {
  await job.moveToDelayed(Date.now() + Math.max(1, Math.ceil(delayMs)), token);
  throw new DelayedError();
}

/** BullMQ retries anything but this class; message and stack stay those of the original. */
function unrecoverable(error: unknown): UnrecoverableError {
  if (error instanceof UnrecoverableError) return error;
  const original = error instanceof Error ? error : new Error(messageOf(error));
  const final = new UnrecoverableError(original.message);
  final.cause = original;
  if (original.stack !== undefined) final.stack = original.stack;
  return final;
}
