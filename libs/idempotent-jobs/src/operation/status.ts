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
 *                       └──────────────────────── refused ───────▶ dead
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

/** Each allowed step and the verb that takes it. A claim may also start from no row at all. */
export const TRANSITIONS: Readonly<Record<OperationStatus, Partial<Record<OperationStatus, string>>>> = {
  pending: { running: 'claim', dead: 'refuse' },
  running: {
    running: 'take over',
    completed: 'complete',
    retrying: 'fail',
    in_doubt: 'doubt',
    dead: 'give up',
  },
  retrying: { running: 'claim', in_doubt: 'doubt', dead: 'refuse' },
  in_doubt: { completed: 'resolve as applied', retrying: 'resolve as not applied', dead: 'give up' },
  completed: {},
  dead: { pending: 'redrive' },
};

/** Whether the operation has its final outcome. */
export function isSettled(status: OperationStatus): boolean {
  return status === 'completed' || status === 'dead';
}
