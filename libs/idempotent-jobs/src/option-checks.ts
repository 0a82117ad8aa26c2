/** Collects what is wrong with a set of options, so that one start tells it all. */
export interface OptionChecks {
  /** A positive, finite number, or the default. */
  positive(option: string, value: number | undefined, fallback: number): number;
  /** A positive whole number, or the default. */
  count(option: string, value: number | undefined, fallback: number): number;
  /** A finite number not below `minimum`, or the default. */
  atLeast(option: string, value: number | undefined, fallback: number, minimum: number): number;
  fail(option: string, value: unknown, expected: string): void;
  throwIfAny(toError: (message: string) => Error): void;
}

/** `subject`: whose options these are, as the error names it. */
export function optionChecks(subject: string): OptionChecks {
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
    positive: checked((value) => value > 0, 'a number greater than 0'),
    count: checked((value) => Number.isInteger(value) && value > 0, 'a whole number greater than 0'),
    atLeast: (option, value, fallback, minimum) =>
      checked((number) => number >= minimum, `a number of at least ${minimum}`)(option, value, fallback),
    fail,
    throwIfAny(toError) {
      if (problems.length > 0) throw toError(`${subject}: ${problems.join('; ')}.`);
    },
  };
}

function describe(value: unknown): string {
  return typeof value === 'string' ? `"${value}"` : String(value);
}
