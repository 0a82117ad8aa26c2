import type { Database } from '../../ledger/postgres/database.js';
import type { Values } from './values.js';

/** 0: done. 1: refused, nothing matched, problems found, or not to be reached. */
export type ExitCode = 0 | 1;

/** Exit code of wrong usage. */
export const WRONG_USAGE = 2;

/** What a command has to say, for programs and for people. One of the two is printed, with whatever is unseen escaped. */
export interface CommandResult {
  readonly exitCode: ExitCode;
  /** Plain JSON; Dates are fine. */
  readonly json: unknown;
  readonly lines: readonly string[];
}

/** An option of a command, as `--help` shows it. */
export interface CommandOption {
  /** What stands for the value, e.g. `<name>`; undefined: a flag without one. */
  readonly value?: string;
  readonly help: string;
}

/** What a command works with. */
export interface CommandContext {
  readonly values: Values;
  /** Connected; its schema is checked unless the command says otherwise. */
  readonly database: Database;
  readonly env: NodeJS.ProcessEnv;
}

/** A command of `npx -p nestjs-idempotent-jobs idempotent-jobs`. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  /** What it takes besides options, as `--help` shows it, e.g. `[letter]`. Undefined: nothing. */
  readonly operand?: string;
  readonly options: Readonly<Record<string, CommandOption>>;
  /** Whether it works on a ledger of this package's version; false for what makes one. Default true. */
  readonly needsLedger?: boolean;
  run(context: CommandContext): Promise<CommandResult>;
}

/** Options that every command takes. */
export const COMMON_OPTIONS: Readonly<Record<string, CommandOption>> = {
  schema: { value: '<name>', help: 'the Postgres schema of the ledger (default: public)' },
  prefix: { value: '<prefix>', help: 'the prefix of BullMQ’s keys in Redis (default: bull)' },
  json: { help: 'print JSON, and nothing else, on stdout' },
  help: { help: 'say how to use the command' },
};

export const DRY_RUN: CommandOption = { help: 'only say what would be done' };
export const ACTOR: CommandOption = {
  value: '<who>',
  help: 'who does this; kept with what is done (required)',
};
export const NOTE: CommandOption = { value: '<why>', help: 'why; kept with what is done (required)' };
