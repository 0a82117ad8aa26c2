/** Collects everything that is wrong with a set of options, so that one failed start names it all. */
export type OptionChecks = ReturnType<typeof optionChecks>;

/** The longest time that setTimeout accepts: a longer one fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** `subject` names the options in the error. */
export function optionChecks(subject: string) {
  const problems: string[] = [];
  const fail = (option: string, value: unknown, expected: string): void => {
    problems.push(`${option} is ${describe(value)}, but must be ${expected}`);
  };
  const checked =
    (isRight: (value: number) => boolean, expected: string) =>
    (option: string, value: number | undefined, fallback: number): number => {
      if (value === undefined) return fallback;
      if (typeof value !== 'number' || !Number.isFinite(value) || !isRight(value))
        fail(option, value, expected);
      return value;
    };
  return {
    /** A positive, finite number, or the default. */
    positive: checked((value) => value > 0, 'a number greater than 0'),
    /** A positive whole number, or the default. */
    count: checked((value) => Number.isInteger(value) && value > 0, 'a whole number greater than 0'),
    /** A whole number not below 0, or the default. */
    countFromZero: checked((value) => Number.isInteger(value) && value >= 0, 'a whole number of at least 0'),
    /** A finite number not below `minimum`, or the default. */
    atLeast: (option: string, value: number | undefined, fallback: number, minimum: number): number =>
      checked((number) => number >= minimum, `a number of at least ${minimum}`)(option, value, fallback),
    /** A number of milliseconds, not below `minimum`, that a timer can count, or the default. */
    timer: (option: string, value: number | undefined, fallback: number, minimum = 1): number =>
      checked(
        (number) => number >= minimum && number <= MAX_TIMER_MS,
        `a number of milliseconds from ${minimum} to ${MAX_TIMER_MS} (24.8 days)`,
      )(option, value, fallback),
    /** A boolean, or the default. */
    flag(option: string, value: boolean | undefined, fallback: boolean): boolean {
      if (value !== undefined && typeof value !== 'boolean') fail(option, value, 'true or false');
      return value ?? fallback;
    },
    /** One of a few texts, or the default. */
    oneOf<T extends string>(option: string, value: T | undefined, allowed: readonly T[], fallback: T): T {
      if (value !== undefined && !allowed.includes(value))
        fail(option, value, allowed.map((one) => `"${one}"`).join(' or '));
      return value ?? fallback;
    },
    /** A function, or nothing. */
    callback(option: string, value: unknown): void {
      if (value !== undefined && typeof value !== 'function') fail(option, value, 'a function');
    },
    fail,
    /** As `fail`, but with a text that does not quote the value. */
    problem: (text: string): void => void problems.push(text),
    throwIfAny(toError: (message: string) => Error): void {
      if (problems.length > 0) throw toError(`${subject}: ${problems.join('; ')}.`);
    },
  };
}

function describe(value: unknown): string {
  if (typeof value === 'string') return `"${value}"`;
  try {
    return String(value);
  } catch {
    return 'an object';
  }
}

/** The options that are given: one that is set to undefined counts as left out. */
export function definedOf<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}
