/** When a service is asked about a doubt, all in milliseconds since the attempt that left it had ended. */
export interface ReconcileSchedule {
  /** The first questions, in ascending order. */
  readonly afterMs: readonly number[];
  /** From the last of them on, one more each time this has passed. */
  readonly thenEveryMs: number;
  /** The last question; unanswered, the operation waits for a person. */
  readonly untilMs: number;
  /** Before that, "it did not happen" is not believed: what was sent may arrive late. */
  readonly lateArrivalMs: number;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** A lost answer mostly is a matter of seconds; an outage may take hours, and after a day a person knows more. */
export const DEFAULT_SCHEDULE: ReconcileSchedule = {
  afterMs: [5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 30 * MINUTE],
  thenEveryMs: HOUR,
  untilMs: 24 * HOUR,
  lateArrivalMs: 0,
};

/**
 * How long to wait for the next question; undefined: the plan is over. Pure.
 *
 * @param ageMs how long the attempt has been over, by the database's clock
 */
export function nextQuestionMs(plan: ReconcileSchedule, ageMs: number): number | undefined {
  if (ageMs >= plan.untilMs) return undefined;
  const next = plan.afterMs.find((afterMs) => afterMs > ageMs) ?? laterMs(plan, ageMs);
  // At the end of the window "it did not happen" is believed: no reason to wait for the plan.
  const dueMs = ageMs < plan.lateArrivalMs ? Math.min(next, plan.lateArrivalMs) : next;
  return Math.ceil(Math.min(dueMs, plan.untilMs) - ageMs);
}

function laterMs({ afterMs, thenEveryMs }: ReconcileSchedule, ageMs: number): number {
  const lastMs = afterMs.at(-1) ?? 0;
  return lastMs + (Math.floor((ageMs - lastMs) / thenEveryMs) + 1) * thenEveryMs;
}
