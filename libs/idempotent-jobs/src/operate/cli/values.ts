import { WrongUsage } from './wrong-usage.js';

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60 * 1000,
  h: 60 * 60 * 1000,
  d: 24 * 60 * 60 * 1000,
};

/** The options of a call, read as what they are meant to be. Each reader throws {@link WrongUsage}. */
export class Values {
  constructor(
    private readonly given: Readonly<Record<string, string | boolean | undefined>>,
    /** What stood there without an option's name. */
    readonly operand: string | undefined,
  ) {}

  flag(name: string): boolean {
    return this.given[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.given[name];
    if (value === '') throw new WrongUsage(`--${name} must not be empty.`);
    return typeof value === 'string' ? value : undefined;
  }

  /** For options that would be ignored: refuses them, and says why. */
  refuse(names: readonly string[], why: string): void {
    const wrong = names.find((name) => this.given[name] !== undefined);
    if (wrong !== undefined) throw new WrongUsage(`--${wrong} ${why}.`);
  }

  required(name: string): string {
    const value = this.text(name);
    if (value === undefined) throw new WrongUsage(`--${name} is missing.`);
    return value;
  }

  /** A number from `min` to `max`. */
  number(name: string, min: number, max: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (!/^\d+(?:\.\d+)?$/.test(text) || value < min || value > max)
      throw new WrongUsage(`--${name} must be a number from ${min} to ${max}, but is "${text}".`);
    return value;
  }

  /** A time span such as `90s`, `15m`, `2h` or `7d`, in ms. */
  durationMs(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
    if (number === undefined || unit === undefined)
      throw new WrongUsage(`--${name} must be a time span such as 90s, 15m, 2h or 7d, but is "${text}".`);
    return Number(number) * (UNIT_MS[unit] as number);
  }

  /** A point in time in ISO 8601. */
  date(name: string): Date | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const date = new Date(text);
    if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(date.getTime()))
      throw new WrongUsage(
        `--${name} must be a time in ISO 8601 such as 2026-01-31T12:00:00Z, but is "${text}".`,
      );
    return date;
  }
}
