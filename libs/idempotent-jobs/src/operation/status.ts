/**
 * The states of an operation, as rows of `job_outcomes` know them. The database's CHECK constraints say the same again.
 *
 * ```
 *            enqueue              claim                complete
 *  (none) ─────────▶ pending ───────────▶ running ───────────────▶ completed
 *                       │                 │  │  │                      ▲
 *                       │    fail, retry  │  │  └ unknown ─▶ in_doubt ─┘ resolved as applied
 *                       │    retrying ◀───┘  │                 │
 *                       │      └─ claim ─▶   └──── give up ────┴──▶ dead
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
