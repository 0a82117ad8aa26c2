import { numberOf } from 'payments';

/** The same environment variables, for the same pace, as the sample application's. */
export const PACE = {
  concurrency: numberOf('CONCURRENCY', 10),
  lockDuration: numberOf('LOCK_MS', 30_000),
  stalledInterval: numberOf('STALL_CHECK_MS', 30_000),
};
