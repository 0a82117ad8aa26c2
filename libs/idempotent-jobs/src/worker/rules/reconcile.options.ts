import type { OptionChecks } from '../../options/option-checks.js';
import { DEFAULT_SCHEDULE, type ReconcileSchedule } from './reconcile-schedule.js';

/** How a service is asked whether an effect happened. All times in milliseconds. */
export interface ReconcileOptions {
  /**
   * The first questions: so long after the attempt had ended, in ascending order. Default: 5 s, 15 s, 1 min, 5 min and
   * 30 min.
   */
  readonly afterMs?: readonly number[];
  /** From the last of these on, one more each time this has passed. Default 1 h. */
  readonly thenEveryMs?: number;
  /** The last question; if it is not answered either, the dead letter `in_doubt` is written. Default 24 h. */
  readonly untilMs?: number;
  /** How long a question may take. Unanswered by then, it counts as unknown. Default 10 s. */
  readonly timeoutMs?: number;
  /**
   * Only so long after the attempt had ended is `notApplied()` believed, and asked again before: what was sent may
   * arrive late. As long as requests can be on their way to the service. Default 0: the service knows at once.
   */
  readonly lateArrivalMs?: number;
}

/** A plan, and how long each question may take, in ms. */
export interface ReconcileRules {
  readonly schedule: ReconcileSchedule;
  readonly timeoutMs: number;
}

/** Fills in the defaults. `name`: what the options are called where they are given. */
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

/** Longer ones are a slip of units. */
const MAX_MS = 365 * 24 * 60 * 60 * 1000;
