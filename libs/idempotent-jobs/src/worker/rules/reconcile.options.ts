import type { OptionChecks } from '../../option-checks/option-checks.js';

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

/** How a service is asked whether an effect happened. All times in milliseconds. */
export interface ReconcileOptions {
  /**
   * The first questions, in ms after the end of the attempt, in ascending order. Default: 5 s, 15 s, 1 min, 5 min and
   * 30 min.
   */
  readonly afterMs?: readonly number[];
  /** After the last of these, one more question each time this has passed. Default 1 h. */
  readonly thenEveryMs?: number;
  /** The last question. If it is not answered either, the dead letter `in_doubt` is written. Default 24 h. */
  readonly untilMs?: number;
  /** How long a question may take. If it is not answered by then, the answer counts as unknown. Default 10 s. */
  readonly timeoutMs?: number;
  /**
   * How long after the end of the attempt a request may still arrive at the service. Until then `notApplied()` is not
   * believed, and the service is asked again. Default 0: the service knows at once.
   */
  readonly lateArrivalMs?: number;
}

/** A schedule of questions, and how long each may take, in ms. */
export interface ReconcileRules {
  readonly schedule: ReconcileSchedule;
  readonly timeoutMs: number;
}

/** Fills in the defaults. `name` is the option's name where it is given. */
export function resolveReconcile(
  checks: OptionChecks,
  given: ReconcileOptions | undefined,
  name = 'reconcile',
): ReconcileRules {
  if (given !== undefined && (given === null || typeof given !== 'object'))
    checks.fail(name, given, 'an object of options');
  const options = given ?? {};
  const { afterMs = DEFAULT_SCHEDULE.afterMs } = options;
  const isAscending =
    Array.isArray(afterMs) &&
    afterMs.every(
      (ms, index) =>
        ms <= MAX_MS && Number.isFinite(ms) && ms > ((afterMs[index - 1] as number | undefined) ?? 0),
    );
  if (!isAscending) checks.fail(`${name}.afterMs`, afterMs, 'an ascending list of numbers greater than 0');
  const untilMs = checks.positive(`${name}.untilMs`, options.untilMs, DEFAULT_SCHEDULE.untilMs);
  const lateArrivalMs = checks.atLeast(`${name}.lateArrivalMs`, options.lateArrivalMs, 0, 0);
  const thenEveryMs = checks.positive(
    `${name}.thenEveryMs`,
    options.thenEveryMs,
    DEFAULT_SCHEDULE.thenEveryMs,
  );
  for (const [option, ms] of Object.entries({ untilMs, thenEveryMs }))
    if (Number.isFinite(ms) && ms > MAX_MS)
      checks.fail(`${name}.${option}`, ms, `at most a year, ${MAX_MS} ms`);
  if (lateArrivalMs > 0 && lateArrivalMs >= untilMs)
    checks.fail(`${name}.lateArrivalMs`, lateArrivalMs, `less than ${name}.untilMs, which is ${untilMs}`);
  return {
    schedule: {
      afterMs,
      thenEveryMs,
      untilMs,
      lateArrivalMs,
    },
    timeoutMs: checks.timer(`${name}.timeoutMs`, options.timeoutMs, 10_000),
  };
}

/** A longer time is most likely given in the wrong unit. */
const MAX_MS = 365 * 24 * 60 * 60 * 1000;
