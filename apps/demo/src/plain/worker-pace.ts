/** The same environment variables, for the same pace, as the sample application's. */
export const PACE = {
  concurrency: Number(process.env['CONCURRENCY'] ?? 10),
  lockDuration: Number(process.env['LOCK_MS'] ?? 30_000),
  stalledInterval: Number(process.env['STALL_CHECK_MS'] ?? 30_000),
};
