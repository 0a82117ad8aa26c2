/**
 * How many jobs the workers run, and how soon they retry. Read from the environment when the processors' classes are
 * loaded, because decorators take constants; everything else is in settings.ts.
 */
import type { ProcessorWorkerOptions, ReconcileOptions, RetryPolicies } from 'nestjs-idempotent-jobs';
import type { DependencyOptions } from 'nestjs-idempotent-jobs/dependencies';
import { numberOf, variable } from './environment.js';

/** An option of the library, by its name. Left out when the variable is not set, so that the library's default holds. */
const numberIfSet = <N extends string>(option: N, name: string): Partial<Record<N, number>> =>
  variable(name) === undefined ? {} : ({ [option]: Number(variable(name)) } as Record<N, number>);

/** The options of each worker. */
export const PACE: ProcessorWorkerOptions = {
  /** Jobs at the same time: mostly they wait for a service. */
  concurrency: numberOf('CONCURRENCY', 10),
  /** When a worker has vanished, its job is delivered again once the lock has run out and a stall check has seen it. */
  lockDuration: numberOf('LOCK_MS', 30_000),
  stalledInterval: numberOf('STALL_CHECK_MS', 30_000),
};

const backoff = { baseMs: numberOf('RETRY_BASE_MS', 1_000), capMs: numberOf('RETRY_CAP_MS', 60_000) };

/**
 * Eight attempts cover about two minutes of trouble at the default pace. The customer waits for the charge, but not for
 * the receipt, so mail uses the slower `equal` jitter.
 */
export const POLICIES: RetryPolicies = {
  charge: { attempts: 8, timeoutMs: 15_000, backoff },
  mail: { attempts: 8, timeoutMs: 20_000, backoff: { ...backoff, jitter: 'equal' } },
};

/** Each service has a circuit and a retry budget of its own. Neither client retries by itself. */
const OUTSIDE: DependencyOptions = {
  clientRetries: 0,
  breaker: numberIfSet('openMs', 'CIRCUIT_OPEN_MS'),
  retryBudget: numberIfSet('minPerSecond', 'RETRIES_PER_SECOND'),
};

/** The services that the workers call. */
export const DEPENDENCIES = { gateway: OUTSIDE, mail: OUTSIDE };

const afterMs = variable('RECONCILE_AFTER_MS')?.split(',').map(Number);

/** When a service is asked whether an effect happened. */
export const QUESTIONS: ReconcileOptions = {
  ...(afterMs !== undefined && { afterMs }),
  ...numberIfSet('thenEveryMs', 'RECONCILE_THEN_EVERY_MS'),
  ...numberIfSet('untilMs', 'RECONCILE_UNTIL_MS'),
  ...numberIfSet('timeoutMs', 'RECONCILE_TIMEOUT_MS'),
  /**
   * A request that timed out here may still arrive at the service later. Until then, "it did not happen" may be "not
   * yet".
   */
  lateArrivalMs: numberOf('RECONCILE_LATE_ARRIVAL_MS', 30_000),
};
