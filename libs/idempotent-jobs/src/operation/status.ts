/**
 * The states of an operation, as rows of `job_outcomes` know them. The database's CHECK constraints say the same again.
 *
 * ```
 *            enqueue              claim               complete
 *  (none) ─────────▶ pending ───────────▶ running ──────────────▶ completed
 *                                         ▲  │ │ └── unknown ───▶ in_doubt
 *                                   claim │  │ └──── give up ───▶ dead
 *                                         │  ▼ fail, or given back
 *                                        retrying ── claim, too late to repeat ──▶ in_doubt
 * ```
 *
 * A job without a row is claimed from (none). What people do:
 *
 * ```
 *  redrive      dead     ─▶ pending; ─▶ retrying if an earlier attempt may have had its effect
 *  not applied  in_doubt ─▶ pending; also dead, if an earlier attempt may have had its effect
 *  applied      in_doubt ─▶ completed; likewise
 *  discard      in_doubt ─▶ dead; dead stays dead
 *  erase        pending, retrying, in_doubt, running under a lease that is over ─▶ dead, and then its row goes
 * ```
 */
export const OPERATION_STATUSES = [
  'pending',
  'running',
  'retrying',
  'in_doubt',
  'completed',
  'dead',
] as const;

/** Where an operation stands. `completed` and `dead` are settled; `in_doubt` waits for the truth. */
export type OperationStatus = (typeof OPERATION_STATUSES)[number];
