import type { OptionChecks } from '../option-checks/option-checks.js';

/** How long the ledger keeps operations and letters, for the module or for one queue. All in ms. */
export interface RetentionOptions {
  /**
   * How long a completed operation is remembered after its completion. Until then, its key is answered with its result.
   * After that the key is free, and a job older than this is no longer run but gets a dead letter `expired`. Default 7
   * days.
   */
  readonly completedMs?: number;
  /** How long a resolved dead letter is kept. Open ones are never deleted. Default 30 days. */
  readonly lettersMs?: number;
  /**
   * For how long after an operation has ended people may redrive it or retry its failed job, by whatever tool. Must not
   * exceed `completedMs`. Default 7 days.
   */
  readonly redriveWindowMs?: number;
  /**
   * For how long producers may request an operation again under the same key and must get the outcome instead of a second
   * run. Must not exceed `completedMs`. Default 24 hours.
   */
  readonly dedupeWindowMs?: number;
}

/** {@link RetentionOptions} with the defaults filled in. */
export type Retention = Required<RetentionOptions>;

const HOUR_MS = 60 * 60 * 1000;

export const DEFAULT_RETENTION: Retention = {
  completedMs: 7 * 24 * HOUR_MS,
  lettersMs: 30 * 24 * HOUR_MS,
  redriveWindowMs: 7 * 24 * HOUR_MS,
  dedupeWindowMs: 24 * HOUR_MS,
};

/** Fills in the defaults, and reports values that are no durations. */
export function resolveRetention(
  checks: OptionChecks,
  options: RetentionOptions | undefined,
  defaults: Retention,
): Retention {
  const of = (option: keyof Retention): number =>
    checks.positive(`retention.${option}`, options?.[option], defaults[option]);
  return {
    completedMs: of('completedMs'),
    lettersMs: of('lettersMs'),
    redriveWindowMs: of('redriveWindowMs'),
    dedupeWindowMs: of('dedupeWindowMs'),
  };
}

/** For how long BullMQ keeps a queue's finished jobs, by age, in ms. Undefined when it was told no age. */
export interface JobRetention {
  readonly completedMs: number | undefined;
  readonly failedMs: number | undefined;
}

/**
 * Names the times that are longer than the ledger remembers completed operations. A request, redrive or job that comes
 * back within these times must find the outcome, or the effect would happen again.
 */
export function retentionProblems(
  { completedMs, redriveWindowMs, dedupeWindowMs }: Retention,
  jobs: JobRetention,
): string[] {
  const longer: [string, number | undefined][] = [
    ['retention.redriveWindowMs', redriveWindowMs],
    ['retention.dedupeWindowMs', dedupeWindowMs],
    ['removeOnComplete.age', jobs.completedMs],
    ['removeOnFail.age', jobs.failedMs],
  ];
  return longer.flatMap(([name, ms]) =>
    ms !== undefined && ms > completedMs
      ? [`${name} is ${describe(ms)}, longer than retention.completedMs (${describe(completedMs)})`]
      : [],
  );
}

function describe(ms: number): string {
  return ms >= 2 * HOUR_MS ? `${Math.round(ms / HOUR_MS)} h` : `${ms} ms`;
}
