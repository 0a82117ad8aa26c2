/**
 * How hard the workers work and how soon they try again. Read from the environment when the processors' classes are
 * loaded, because decorators take constants; everything else is in settings.ts.
 */
import type { ProcessorWorkerOptions, RetryOptions } from 'nestjs-idempotent-jobs';

const number = (name: string, fallback: number): number => Number(process.env[name] || fallback);

/** Of each worker. */
export const PACE: ProcessorWorkerOptions = {
  /** Jobs at the same time: they wait for others most of the time. */
  concurrency: number('CONCURRENCY', 10),
  /** A job whose worker has vanished is delivered again after the lock has run out and a stall check has seen it. */
  lockDuration: number('LOCK_MS', 30_000),
  stalledInterval: number('STALL_CHECK_MS', 30_000),
};

/** For calls to the outside world: eight attempts are about two minutes of trouble at the default pace. */
export const PATIENCE: RetryOptions = {
  attempts: 8,
  backoff: { baseMs: number('RETRY_BASE_MS', 1_000), capMs: number('RETRY_CAP_MS', 60_000) },
};
