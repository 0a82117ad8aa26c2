import { COMMON_OPTIONS, type Command, type Options } from './command.js';

/** The help as JSON, of the whole program or of one command. */
export function helpAsJson(commands: readonly Command[]): unknown {
  return {
    commands: commands.map(({ name, summary, operand, options }) => ({
      name,
      summary,
      operand,
      options: optionsAsJson(options),
    })),
    commonOptions: optionsAsJson(COMMON_OPTIONS),
  };
}

function optionsAsJson(options: Options): unknown {
  return Object.fromEntries(Object.values(options).map(({ name, value, help }) => [name, { value, help }]));
}

/** The help of the whole program. */
export function helpOfAll(commands: readonly Command[]): string[] {
  return [
    'Usage: idempotent-jobs <command> [options]',
    '',
    'Looks after a ledger of nestjs-idempotent-jobs, without the application.',
    '',
    'Commands:',
    ...aligned(commands.map(({ name, summary }) => [name, summary])),
    ...FOR_EVERY_COMMAND,
  ];
}

/** The help of one command. */
export function helpOf({ name, summary, operand, options }: Command): string[] {
  const own = Object.keys(options).length === 0 ? [] : ['', 'Options:', ...linesOf(options)];
  return [
    `Usage: idempotent-jobs ${name}${operand === undefined ? '' : ` ${operand}`} [options]`,
    '',
    `${summary[0]?.toUpperCase()}${summary.slice(1)}.`,
    ...own,
    ...FOR_EVERY_COMMAND,
  ];
}

function linesOf(options: Options): string[] {
  return aligned(
    Object.values(options).map(({ name, value, help }) => [
      `--${name}${value === undefined ? '' : ` ${value}`}`,
      help,
    ]),
  );
}

function aligned(lines: readonly (readonly [left: string, right: string])[]): string[] {
  const width = Math.max(...lines.map(([left]) => left.length));
  return lines.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}

const FOR_EVERY_COMMAND = [
  '',
  'Options of every command:',
  ...linesOf(COMMON_OPTIONS),
  '',
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
