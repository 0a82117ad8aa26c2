import { parseArgs } from 'node:util';
import { IdempotentJobsError, InvalidIdentityError, UsageError } from '../../operation/errors.js';
import { printable, printableJson } from '../../events/printable.js';
import { PROGRAM } from '../../operation/program.js';
import { ensureSchema } from '../../ledger/postgres/schema-guard.js';
import { COMMON_OPTIONS, type Command, type CommandResult, WRONG_USAGE } from './command.js';
import { COMMANDS } from './commands.js';
import { connect, reasonOf } from './connect.js';
import { helpAsJson, helpOf, helpOfAll } from './help.js';
import { inOurWords } from './in-our-words.js';
import { redactor } from './secrets.js';
import { Values } from './values.js';
import { Unavailable, WrongUsage } from './wrong-usage.js';

/** Where a program speaks. Each call is one or more whole lines. */
export interface Voice {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/**
 * Runs a call of the command line. Never rejects, says no secret, and nothing that a terminal would obey instead of show:
 * whatever comes from a job, a server or the call itself is escaped here, line by line.
 *
 * @returns the exit code
 */
export async function runCli(
  args: readonly string[],
  given: NodeJS.ProcessEnv,
  voice: Voice,
): Promise<number> {
  const env = withoutEmpty(given);
  const isJson = args.includes('--json');
  try {
    const answer = await answerTo(args, env);
    voice.out(isJson ? printableJson(answer.json) : answer.lines.map(printable).join('\n'));
    return answer.exitCode;
  } catch (error) {
    const message = redactor(env)(inOurWords(error));
    if (isJson) voice.out(printableJson({ error: { code: codeOf(error), message } }));
    const help = error instanceof WrongUsage ? error.help : [];
    voice.err([message, ...help].map(printable).join('\n'));
    return isWrongUsage(error) ? WRONG_USAGE : 1;
  }
}

/** A variable that is set to nothing, as in `REDIS_URL=`, counts as not set. */
function withoutEmpty(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''));
}

/** Help, or what the command has to say. */
async function answerTo(args: readonly string[], env: NodeJS.ProcessEnv): Promise<CommandResult> {
  const [name, ...rest] = args[0] === '--json' ? args.slice(1) : args;
  if (name === undefined) throw new WrongUsage('Name a command.', ['', ...helpOfAll(COMMANDS)]);
  if (name === '--help' || name === 'help') return help(helpOfAll(COMMANDS), COMMANDS);
  const command = COMMANDS.find((known) => known.name === name);
  if (command === undefined) {
    throw new WrongUsage(
      `There is no command "${name}". There are: ${COMMANDS.map((known) => known.name).join(', ')}.`,
    );
  }
  const values = parse(command, rest);
  if (values.flag('help')) return help(helpOf(command), [command]);
  const schema = values.text('schema') ?? 'public';
  const database = await connect(env, schema);
  try {
    if (command.needsLedger !== false) await ensureSchema(database, 'check');
    return await command.run({ values, database, env });
  } finally {
    await database.close();
    await database.dataSource.destroy();
  }
}

function help(lines: readonly string[], commands: readonly Command[]): CommandResult {
  return { exitCode: 0, json: helpAsJson(commands), lines };
}

function parse(command: Command, args: readonly string[]): Values {
  const options = Object.fromEntries(
    Object.entries({ ...COMMON_OPTIONS, ...command.options }).map(([name, { value }]) => [
      name,
      { type: value === undefined ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  try {
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
    const most = command.operand === undefined ? 0 : 1;
    if (positionals.length > most) {
      throw new WrongUsage(`"${command.name}" does not know what to do with "${positionals[most]}".`);
    }
    return new Values(values, positionals[0]);
  } catch (error) {
    if (error instanceof WrongUsage) throw error;
    throw new WrongUsage(`${reasonOf(error)} See: ${PROGRAM} ${command.name} --help`);
  }
}

/** What a service refuses to understand was asked wrongly, too. */
function isWrongUsage(error: unknown): boolean {
  return error instanceof WrongUsage || error instanceof UsageError || error instanceof InvalidIdentityError;
}

function codeOf(error: unknown): string {
  if (error instanceof WrongUsage) return 'WRONG_USAGE';
  if (error instanceof Unavailable) return 'UNAVAILABLE';
  return error instanceof IdempotentJobsError ? error.code : 'FAILED';
}
