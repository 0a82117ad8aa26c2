import { COMMON_OPTIONS, type Command, type CommandOption } from './command.js';

/** The help, for programs: of the whole, or of one command. */
export function helpAsJson(commands: readonly Command[]): unknown {
  return {
    commands: commands.map(({ name, summary, operand, options }) => ({ name, summary, operand, options })),
    commonOptions: COMMON_OPTIONS,
  };
}

/** The help of the whole program. */
export function helpOfAll(commands: readonly Command[]): string[] {
  const width = Math.max(...commands.map(({ name }) => name.length));
  const list = commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'Usage: idempotent-jobs <command> [options]',
    '',
    'Looks after a ledger of nestjs-idempotent-jobs, without the application.',
    '',
    'Commands:',
    ...list,
    '',
    'Options of every command:',
    ...optionsOf(COMMON_OPTIONS),
    '',
    ...ENVIRONMENT,
  ];
}

/** The help of one command. */
export function helpOf({ name, summary, operand, options }: Command): string[] {
  const own = Object.keys(options).length === 0 ? [] : ['', 'Options:', ...optionsOf(options)];
  return [
    `Usage: idempotent-jobs ${name}${operand === undefined ? '' : ` ${operand}`} [options]`,
    '',
    `${summary[0]?.toUpperCase()}${summary.slice(1)}.`,
    ...own,
    '',
    'Options of every command:',
    ...optionsOf(COMMON_OPTIONS),
    '',
    ...ENVIRONMENT,
  ];
}

const ENVIRONMENT = [
  'Environment:',
  '  DATABASE_URL  the Postgres that holds the ledger (required)',
  '  REDIS_URL     the Redis of BullMQ, for the depths of queues in "status"; without it',
  "                BullMQ's Postgres backend in DATABASE_URL is asked, if there is one",
  '',
  'Exit codes:',
  '  0  done',
  '  1  refused, nothing matched, problems found, or a server could not be reached',
  '  2  wrong usage',
];

function optionsOf(options: Readonly<Record<string, CommandOption>>): string[] {
  const named = Object.entries(options).map(([name, { value, help }]) => ({
    left: `--${name}${value === undefined ? '' : ` ${value}`}`,
    help,
  }));
  const width = Math.max(...named.map(({ left }) => left.length));
  return named.map(({ left, help }) => `  ${left.padEnd(width)}  ${help}`);
}
