import { parseArgs } from 'node:util';
import { IdempotentJobsError, InvalidIdentityError, UsageError } from '../operation/errors.js';
import { ensureSchema } from '../postgres/schema-guard.js';
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

/** Runs a call of the command line. Never rejects, and says no secret. @returns the exit code */
export async function runCli(args: readonly string[], env: NodeJS.ProcessEnv, voice: Voice): Promise<number> {
  const isJson = args.includes('--json');
  try {
    const answer = await answerTo(args, env);
    voice.out(isJson ? JSON.stringify(answer.json, null, 2) : answer.text);
    return answer.exitCode;
  } catch (error) {
    const message = redactor(env)(inOurWords(reasonOf(error)));
    if (isJson) voice.out(JSON.stringify({ error: { code: codeOf(error), message } }, null, 2));
    voice.err(message);
    return isWrongUsage(error) ? WRONG_USAGE : 1;
  }
}

/** Help, or what the command has to say. */
async function answerTo(args: readonly string[], env: NodeJS.ProcessEnv): Promise<CommandResult> {
  const [name, ...rest] = args[0] === '--json' ? args.slice(1) : args;
  if (name === undefined) throw new WrongUsage(helpOfAll(COMMANDS));
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
    if (command.needsLedger !== false) await ensureSchema(database.dataSource, schema, 'check');
    return await command.run({ values, database, env });
  } finally {
    await database.dataSource.destroy();
  }
}

function help(text: string, commands: readonly Command[]): CommandResult {
  return { exitCode: 0, json: helpAsJson(commands), text };
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
    throw new WrongUsage(`${reasonOf(error)} See: idempotent-jobs ${command.name} --help`);
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
