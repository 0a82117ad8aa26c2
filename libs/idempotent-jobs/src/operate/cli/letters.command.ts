import type { DeadLetter, DeadLetterGroup } from '../../dead-letters/dead-letter.js';
import type { Command, CommandContext, CommandResult } from './command.js';
import { printableJson } from '../../events/printable.js';
import { refuseUnknownQueue } from './known-queue.js';
import { FILTER_OPTIONS, filterOf } from './letter-options.js';
import { deadLettersOf } from './services.js';
import { textTable } from './text-table.js';
import { WrongUsage } from './wrong-usage.js';

/** Looks at dead letters: by cause, as a list, or one with all there is. */
export const letters: Command = {
  name: 'letters',
  summary: 'list dead letters, group them by cause, or show one',
  operand: '[letter]',
  options: {
    ...FILTER_OPTIONS,
    groups: { help: 'group open letters by cause' },
    all: { help: 'resolved letters too' },
    limit: { value: '<n>', help: 'how many, 1 to 1000 (default: 50)' },
    after: { value: '<cursor>', help: 'go on after a list that said there is more' },
    payload: { help: 'with a letter’s id: show what the job carried, too' },
  },
  run(context) {
    const { values } = context;
    if (values.operand !== undefined) return one(context, values.operand);
    if (values.flag('payload')) throw new WrongUsage('--payload needs the id of a letter.');
    return values.flag('groups') ? byCause(context) : list(context);
  },
};

async function one({ values, database }: CommandContext, id: string): Promise<CommandResult> {
  values.refuse(
    [...Object.keys(FILTER_OPTIONS), 'groups', 'all', 'limit', 'after'],
    'is for the list, not for one letter',
  );
  const { payload, ...letter } = await deadLettersOf(database).get(id);
  const shown = values.flag('payload') ? { ...letter, payload } : letter;
  return { exitCode: 0, json: shown, lines: printableJson(shown).split('\n') };
}

async function byCause({ values, database }: CommandContext): Promise<CommandResult> {
  values.refuse(['all', 'after'], 'is for the list, not for --groups');
  const limit = values.number('limit', 1, 1000) ?? 50;
  const groups = await deadLettersOf(database).groups(filterOf(values), { limit });
  if (groups.length === 0) await refuseUnknownQueue(database, values.text('queue'));
  const rows = groups.map(
    ({ letters: count, queue, reason, fingerprint, newestAt, sample }: DeadLetterGroup) => [
      count,
      queue,
      reason,
      sample.error?.message,
      newestAt,
      sample.id,
      fingerprint,
    ],
  );
  return {
    exitCode: groups.length > 0 ? 0 : 1,
    json: { groups },
    lines:
      groups.length === 0
        ? [NOTHING]
        : textTable(['letters', 'queue', 'reason', 'error', 'newest', 'newest letter', 'fingerprint'], rows),
  };
}

async function list({ values, database }: CommandContext): Promise<CommandResult> {
  const after = values.text('after');
  const page = await deadLettersOf(database).list(filterOf(values), {
    open: values.flag('all') ? 'any' : true,
    limit: values.number('limit', 1, 1000) ?? 50,
    ...(after !== undefined && { after }),
  });
  if (page.letters.length === 0) await refuseUnknownQueue(database, values.text('queue'));
  const rows = page.letters.map((letter: DeadLetter) => [
    letter.id,
    letter.createdAt,
    letter.queue,
    letter.reason,
    letter.tenantId,
    letter.operationKey,
    letter.attempts,
    letter.resolved?.as ?? 'open',
    letter.error?.message,
  ]);
  const headers = ['letter', 'written', 'queue', 'reason', 'tenant', 'key', 'attempts', 'state', 'error'];
  const more = page.next === undefined ? [] : ['', `There is more: --after ${page.next}`];
  return {
    exitCode: page.letters.length > 0 ? 0 : 1,
    json: page,
    lines: page.letters.length === 0 ? [NOTHING] : [...textTable(headers, rows), ...more],
  };
}

const NOTHING = 'No dead letter matches.';
