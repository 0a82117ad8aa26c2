/** When a service is asked about a doubt. All times are in ms since the end of the attempt that left the doubt. */
export interface ReconcileSchedule {
  /** The first questions, in ascending order. */
  readonly afterMs: readonly number[];
  /** After the last of them, one more question each time this has passed. */
  readonly thenEveryMs: number;
  /** The last question. If it is not answered either, a person has to find out. */
  readonly untilMs: number;
  /** Until then "it did not happen" is not believed: what was sent may arrive late. */
  readonly lateArrivalMs: number;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** A lost answer is mostly found within seconds; an outage may take hours; after a day a person knows more. */
export const DEFAULT_SCHEDULE: ReconcileSchedule = {
  afterMs: [5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 30 * MINUTE],
  thenEveryMs: HOUR,
  untilMs: 24 * HOUR,
  lateArrivalMs: 0,
};

/**
 * How long to wait for the next question, in ms. Undefined when the schedule is over. Pure.
 *
 * @param ageMs how long the attempt has been over, in ms by the database's clock
 */
export function nextQuestionMs(plan: ReconcileSchedule, ageMs: number): number | undefined {
  if (ageMs >= plan.untilMs) return undefined;
  const next = plan.afterMs.find((afterMs) => afterMs > ageMs) ?? laterMs(plan, ageMs);
  // When the late-arrival time ends, "it did not happen" is believed: there is no reason to wait for the schedule.
  const dueMs = ageMs < plan.lateArrivalMs ? Math.min(next, plan.lateArrivalMs) : next;
  return Math.ceil(Math.min(dueMs, plan.untilMs) - ageMs);
}

function laterMs({ afterMs, thenEveryMs }: ReconcileSchedule, ageMs: number): number {
  const lastMs = afterMs.at(-1) ?? 0;
  return lastMs + (Math.floor((ageMs - lastMs) / thenEveryMs) + 1) * thenEveryMs;
}
