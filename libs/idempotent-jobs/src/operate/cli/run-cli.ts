import { printable, printableJson } from '../../events/printable.js';
import { ensureSchema } from '../../ledger/postgres/schema-guard.js';
import {
  DeadLetterRefusedError,
  IdempotentJobsError,
  InvalidIdentityError,
  UsageError,
} from '../../operation/errors.js';
import { isA } from '../../operation/thrown.js';
import {
  COMMON_OPTIONS,
  type Command,
  type CommandResult,
  type Options,
  parse,
  read,
  refusing,
  Unavailable,
  WrongUsage,
} from './command.js';
import { COMMANDS } from './commands.js';
import { connect, reasonOf, redactor } from './connect.js';
import { deadLettersOf, refuseUnknownQueue } from './services.js';

/** The output of the program. Each call is one or more whole lines. */
export interface Output {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/**
 * Runs a call of the command line. Never rejects. Prints no secret, and no control characters that a terminal would obey:
 * every line, with whatever text from a job, a server or the call itself, is escaped here.
 *
 * @returns the exit code: 0, 1 or, for wrong usage, 2
 */
export async function runCli(
  args: readonly string[],
  given: NodeJS.ProcessEnv,
  output: Output,
): Promise<number> {
  // A variable that is empty, as in `REDIS_URL=`, counts as not set.
  const env = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ''));
  const isJson = args.includes('--json');
  try {
    const answer = await answerTo(args, env);
    output.out(isJson ? printableJson(answer.json) : answer.lines.map(printable).join('\n'));
    return answer.exitCode;
  } catch (error) {
    const message = redactor(env)(inOurWords(error));
    if (isJson) output.out(printableJson({ error: { code: codeOf(error), message } }));
    const help = error instanceof WrongUsage ? error.help : [];
    output.err([message, ...help].map(printable).join('\n'));
    return isWrongUsage(error) ? 2 : 1;
  }
}

/** The help, or the result of the command. */
async function answerTo(args: readonly string[], env: NodeJS.ProcessEnv): Promise<CommandResult> {
  const [name, ...rest] = args[0] === '--json' ? args.slice(1) : args;
  if (name === undefined) throw new WrongUsage('Name a command.', ['', ...helpOfAll(COMMANDS)]);
  if (name === '--help' || name === 'help')
    return { exitCode: 0, json: helpAsJson(COMMANDS), lines: helpOfAll(COMMANDS) };
  const command = COMMANDS.find((known) => known.name === name);
  if (command === undefined) {
    const known = COMMANDS.map((one) => one.name).join(', ');
    throw new WrongUsage(`There is no command "${name}". There are: ${known}.`);
  }
  return run(command, rest, env);
}

async function run(
  command: Command,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<CommandResult> {
  const { values, operand } = parse(command, args);
  if (values['help'] === true) return { exitCode: 0, json: helpAsJson([command]), lines: helpOf(command) };
  const { schema = 'public', prefix } = read(COMMON_OPTIONS, values);
  const given = read(command.options, values);
  const refuse = refusing(command.options, values);
  const database = await connect(env, schema);
  try {
    if (command.needsLedger !== false) await ensureSchema(database, 'check');
    const deadLetters = deadLettersOf(database);
    const result = await command.run({ given, operand, database, deadLetters, prefix, env, refuse });
    // A mistyped name is told from a queue that has nothing to show.
    if (result.exitCode === 1) await refuseUnknownQueue(database, given['queue'] as string | undefined);
    return result;
  } finally {
    await database.close();
    await database.dataSource.destroy();
  }
}

/** What helps when an action is refused here. The services' own messages name their methods and options. */
const ADVICE: Readonly<Record<string, string>> = {
  no_identity:
    'it has no tenant or operation key. Give it one by hand with redriveEdited() in the application, or discard it',
  conflict:
    'its key belongs to another request, which is untouched. Give it a key of its own with redriveEdited() in the application, or discard it',
  no_payload: 'its payload was not kept. Give one with redriveEdited() in the application, or discard it',
  deadline_passed: 'the deadline its producer gave has passed. Give another: --deadline <time>',
};

/** Why a call failed, in terms of the command line. */
export function inOurWords(error: unknown): string {
  if (!isA(error, DeadLetterRefusedError) || !Object.hasOwn(ADVICE, error.reason)) return reasonOf(error);
  return `${String(error.data['id'])}: ${ADVICE[error.reason]}. Nothing was changed.`;
}

/** A request that a service rejects as invalid counts as wrong usage, too. */
function isWrongUsage(error: unknown): boolean {
  return error instanceof WrongUsage || error instanceof UsageError || error instanceof InvalidIdentityError;
}

function codeOf(error: unknown): string {
  if (error instanceof WrongUsage) return 'WRONG_USAGE';
  if (error instanceof Unavailable) return 'UNAVAILABLE';
  return error instanceof IdempotentJobsError ? error.code : 'FAILED';
}

/** The help as JSON, of the whole program or of one command. */
function helpAsJson(commands: readonly Command[]): unknown {
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
function helpOfAll(commands: readonly Command[]): string[] {
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
function helpOf({ name, summary, operand, options }: Command): string[] {
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
