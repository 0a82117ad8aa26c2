import { parseArgs } from 'node:util';
import type { DeadLetterService } from '../../dead-letters/dead-letter.service.js';
import type { Database } from '../../ledger/postgres/database.js';
import { messageOf } from '../../operation/thrown.js';
import { PROGRAM } from '../../operation/errors.js';

/** The command was called wrongly, and nothing was done. Exit code 2. */
export class WrongUsage extends Error {
  /** @param help lines to print after the message. Default: none */
  constructor(
    message: string,
    readonly help: readonly string[] = [],
  ) {
    super(message);
  }
}

/** The call was right, but what it asks for cannot be done. Exit code 1. */
export class Unavailable extends Error {}

/** What a command prints: `json` with `--json`, `lines` otherwise. The caller escapes both. */
export interface CommandResult {
  /** 0: done. 1: refused, nothing matched, or problems found. */
  readonly exitCode: 0 | 1;
  /** Plain JSON; Dates are allowed. */
  readonly json: unknown;
  readonly lines: readonly string[];
}

/** An option of a command. */
export interface Option<T = unknown> {
  /** Its name on the command line, without the dashes. */
  readonly name: string;
  readonly help: string;
  /** The placeholder for the value in the help, e.g. `<name>`. A flag has none. */
  readonly value?: string;
  /** Parses the given text, which is never empty; undefined when there is none. Throws {@link WrongUsage}. */
  readonly read: (given: string | undefined) => T;
}

/** A command's options by their names in code, which are mostly those of the service that the command calls. */
export type Options = Readonly<Record<string, Option>>;

/** The values of the options of a call. */
export type Given<O extends Options> = {
  readonly [Key in keyof O]: O[Key] extends Option<infer T> ? T : never;
};

/** One call of a command. */
export interface Call<O extends Options = Options> {
  readonly given: Given<O>;
  /** The argument without an option's name. */
  readonly operand: string | undefined;
  /** Connected. Its schema is checked unless the command says otherwise. */
  readonly database: Database;
  readonly deadLetters: DeadLetterService;
  /** The prefix of BullMQ's keys in Redis. Undefined means the one that queues have unless the application gives one. */
  readonly prefix: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** Throws {@link WrongUsage} if one of those options was given, since it would be ignored. `why` follows its name. */
  readonly refuse: (keys: readonly (keyof O)[], why: string) => void;
}

/** A command of `npx -p nestjs-idempotent-jobs idempotent-jobs`. */
export interface Command<O extends Options = Options> {
  readonly name: string;
  readonly summary: string;
  /** The argument it takes besides options, as the help shows it, e.g. `[letter]`. Default: none. */
  readonly operand?: string;
  readonly options: O;
  /** Whether it needs a ledger of this package's version. Default: true. */
  readonly needsLedger?: boolean;
  run(call: Call<O>): Promise<CommandResult>;
}

/** Declares a command. Its `run` gets values of the types that its options declare. */
export function command<const O extends Options>(declared: Command<O>): Command {
  return declared;
}

export function flag(name: string, help: string): Option<boolean> {
  return { name, help, read: (given) => given !== undefined };
}

export function text(name: string, value: string, help: string): Option<string | undefined> {
  return { name, value, help, read: (given) => given };
}

/** A number from `min` to `max`. */
export function number(
  name: string,
  [min, max]: readonly [min: number, max: number],
  help: string,
  value = '<n>',
): Option<number | undefined> {
  return reading(name, value, help, `a number from ${min} to ${max}`, (given) => {
    const read = Number(given);
    return /^\d+(?:\.\d+)?$/.test(given) && read >= min && read <= max ? read : undefined;
  });
}

/** A whole number from `min` to `max`. */
export function wholeNumber(
  name: string,
  [min, max]: readonly [min: number, max: number],
  help: string,
): Option<number | undefined> {
  return reading(name, '<n>', help, `a whole number from ${min} to ${max}`, (given) => {
    const read = Number(given);
    return /^\d+$/.test(given) && read >= min && read <= max ? read : undefined;
  });
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A time span such as `90s`, `15m`, `2h` or `7d`, read in ms. */
export function duration(name: string, help: string): Option<number | undefined> {
  return reading(name, '<span>', help, 'a time span such as 90s, 15m, 2h or 7d', (given) => {
    const [, count, unit = ''] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(given) ?? [];
    return count === undefined ? undefined : Number(count) * (UNIT_MS[unit] as number);
  });
}

/** A point in time in ISO 8601. */
export function time(name: string, help: string): Option<Date | undefined> {
  return reading(name, '<time>', help, 'a time in ISO 8601 such as 2026-01-31T12:00:00Z', (given) => {
    const date = new Date(given);
    return /^\d{4}-\d\d-\d\d/.test(given) && !Number.isNaN(date.getTime()) ? date : undefined;
  });
}

/** One word of a closed list. */
export function word<W extends string>(
  name: string,
  value: string,
  words: readonly W[],
): Option<W | undefined> {
  const list = `one of ${words.join(', ')}`;
  return reading(name, value, list, list, (given) => words.find((known) => known === given));
}

/** `read` returns undefined for a text that it cannot read. */
function reading<T>(
  name: string,
  value: string,
  help: string,
  what: string,
  read: (given: string) => T | undefined,
): Option<T | undefined> {
  const readOrThrow = (given: string | undefined): T | undefined => {
    const found = given === undefined ? undefined : read(given);
    if (found === undefined && given !== undefined)
      throw new WrongUsage(`--${name} must be ${what}, but is "${given}".`);
    return found;
  };
  return { name, value, help, read: readOrThrow };
}

export function required<T>(option: Option<T | undefined>): Option<T> {
  const readOrThrow = (given: string | undefined): T => {
    const found = option.read(given);
    if (found === undefined) throw new WrongUsage(`--${option.name} is missing.`);
    return found;
  };
  return { ...option, read: readOrThrow };
}

/** Options that every command takes. */
export const COMMON_OPTIONS = {
  schema: text('schema', '<name>', 'the Postgres schema of the ledger (default: public)'),
  prefix: text(
    'prefix',
    '<prefix>',
    'the prefix of BullMQ’s keys in Redis (default: bull; {bull} on a Redis Cluster)',
  ),
  json: flag('json', 'print JSON, and nothing else, on stdout'),
  help: flag('help', 'say how to use the command'),
};

/** The given texts by their names on the command line, before any is parsed. */
type Values = Readonly<Record<string, string | boolean | undefined>>;

/**
 * Splits a call into options and operand.
 *
 * @throws WrongUsage for options that the command does not have, and for too many words
 */
export function parse({ name, options, operand }: Command, args: readonly string[]) {
  const known = [...Object.values(COMMON_OPTIONS), ...Object.values(options)];
  const types = known.map(
    ({ name, value }) => [name, { type: value === undefined ? 'boolean' : 'string' } as const] as const,
  );
  let found: ReturnType<typeof parseArgs>;
  try {
    found = parseArgs({ args: [...args], options: Object.fromEntries(types), allowPositionals: true });
  } catch (error) {
    throw new WrongUsage(`${messageOf(error)} See: ${PROGRAM} ${name} --help`);
  }
  const { values, positionals } = found;
  const most = operand === undefined ? 0 : 1;
  if (positionals.length > most)
    throw new WrongUsage(`"${name}" does not know what to do with "${positionals[most]}".`);
  return { values: values as Values, operand: positionals[0] };
}

/** Parses the values of options. @throws WrongUsage for one that is missing, empty or invalid */
export function read<O extends Options>(options: O, values: Values): Given<O> {
  const given: Record<string, unknown> = {};
  for (const [key, { name, read }] of Object.entries(options)) {
    const value = values[name];
    if (value === '') throw new WrongUsage(`--${name} must not be empty.`);
    given[key] = read(value === undefined ? undefined : String(value));
  }
  return given as Given<O>;
}

/** Makes {@link Call.refuse}. */
export function refusing(options: Options, values: Values): Call['refuse'] {
  return (keys, why) => {
    const names = keys.map((key) => options[key]?.name as string);
    const wrong = names.find((name) => values[name] !== undefined);
    if (wrong !== undefined) throw new WrongUsage(`--${wrong} ${why}.`);
  };
}
