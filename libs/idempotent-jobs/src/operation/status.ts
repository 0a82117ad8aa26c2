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
 * A job without a row is claimed from (none). What the service says when it is asked:
 *
 * ```
 *  not applied  in_doubt ─▶ running
 *  applied      in_doubt ─▶ completed
 * ```
 *
 * What webhooks say (`resolve()`) of an operation that was claimed:
 *
 * ```
 *  not applied  retrying, in_doubt, running under a lease that is over ─▶ pending; also dead, if it may have had its effect
 *  applied      all but completed ─▶ completed
 * ```
 *
 * What sweeps find:
 *
 * ```
 *  its job has ended  pending, retrying ─▶ retrying, doubtful, if keyed or reconciled
 *                     pending, retrying ─▶ in_doubt, if unrepeatable or transactional
 *  its job is gone    pending, retrying, running under a lease that is over ─▶ in_doubt
 *  it had no job      retrying, running under a lease that is over ─▶ in_doubt, if it must not be repeated
 * ```
 *
 * What people do:
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
