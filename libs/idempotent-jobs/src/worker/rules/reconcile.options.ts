import type { OptionChecks } from '../../options/option-checks.js';
import { DEFAULT_SCHEDULE, type ReconcileSchedule } from './reconcile-schedule.js';

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
