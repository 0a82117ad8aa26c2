import type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRef,
} from '../../dead-letters/dead-letter.js';
import { printableJson } from '../../events/printable.js';
import { DEAD_LETTER_REASONS } from '../../operation/reasons.js';
import { type EffectVerdict, Reconciliation } from '../../operation/effect.js';
import {
  type Call,
  command,
  type CommandResult,
  flag,
  type Given,
  number,
  required,
  text,
  time,
  word,
  WrongUsage,
} from './command.js';
import { type Columns, done, listed } from './render.js';

export const DRY_RUN = flag('dry-run', 'only say what would be done');
/** Options that say who acts, and why. */
export const ACTION = {
  actor: required(text('actor', '<who>', 'who does this; kept with what is done (required)')),
  note: required(text('note', '<why>', 'why; kept with what is done (required)')),
  dryRun: DRY_RUN,
};

/** Options that select letters. */
export const FILTER = {
  queue: text('queue', '<name>', 'of this source queue'),
  tenantId: text('tenant', '<id>', 'of this tenant'),
  operationKey: text('key', '<key>', 'of this operation key'),
  reason: word('reason', '<reason>', DEAD_LETTER_REASONS),
  fingerprint: text('fingerprint', '<print>', 'of this cause, as "letters --groups" shows it'),
  from: time('from', 'written at or after this time (ISO 8601)'),
  until: time('until', 'written before this time (ISO 8601)'),
};

export function filterOf(given: Given<typeof FILTER>): DeadLetterFilter {
  const { queue, tenantId, operationKey, reason, fingerprint, from, until } = given;
  return { queue, tenantId, operationKey, reason, fingerprint, from, until };
}

/** Options that name an operation instead of a letter's id. */
const OPERATION = {
  tenantId: text('tenant', '<id>', 'with --key: the operation whose open letter is meant'),
  operationKey: text('key', '<key>', 'see --tenant'),
  step: text('step', '<name>', 'with --key: the step of that operation'),
};

/** The letter that a call names, by its id or by tenant and key. @throws WrongUsage if it names neither or both */
export function letterOf(
  id: string | undefined,
  { tenantId, operationKey, step }: Partial<Given<typeof OPERATION>>,
): DeadLetterRef {
  if (id !== undefined) {
    if (tenantId !== undefined || operationKey !== undefined || step !== undefined)
      throw new WrongUsage('Name the letter by its id, or by --tenant and --key, not by both.');
    return id;
  }
  if (tenantId === undefined || operationKey === undefined)
    throw new WrongUsage('Name a letter: by its id, as "letters" shows it, or by --tenant and --key.');
  return { tenantId, operationKey, step };
}

const LETTERS = {
  ...FILTER,
  groups: flag('groups', 'group open letters by cause'),
  all: flag('all', 'resolved letters too'),
  limit: number('limit', [1, 1000], 'how many, 1 to 1000 (default: 50)'),
  after: text('after', '<cursor>', 'go on after a list that said there is more'),
  payload: flag('payload', 'with a letter’s id: show what the job carried, too'),
};

export const letters = command({
  name: 'letters',
  summary: 'list dead letters, group them by cause, or show one',
  operand: '[letter]',
  options: LETTERS,
  async run(call) {
    const { given, operand, refuse } = call;
    if (operand !== undefined) return oneLetter(call, operand);
    if (given.payload) throw new WrongUsage('--payload needs the id of a letter.');
    if (!given.groups) return letterList(call);
    refuse(['all', 'after'], 'is for the list, not for --groups');
    return letterGroups(call);
  },
});

async function oneLetter(
  { given, deadLetters, refuse }: Call<typeof LETTERS>,
  id: string,
): Promise<CommandResult> {
  const { payload: _payload, ...ofLists } = LETTERS;
  refuse(Object.keys(ofLists) as (keyof typeof ofLists)[], 'is for the list, not for one letter');
  const { payload, ...letter } = await deadLetters.get(id);
  const shown = given.payload ? { ...letter, payload } : letter;
  return { exitCode: 0, json: shown, lines: printableJson(shown).split('\n') };
}

const NOTHING = 'No dead letter matches.';

async function letterGroups({ given, deadLetters }: Call<typeof LETTERS>): Promise<CommandResult> {
  const groups = await deadLetters.groups(filterOf(given), { limit: given.limit });
  return listed({ groups }, groups, GROUP_COLUMNS, NOTHING);
}

const GROUP_COLUMNS: Columns<DeadLetterGroup> = {
  letters: ({ letters: count }) => count,
  queue: ({ queue }) => queue,
  reason: ({ reason }) => reason,
  error: ({ sample }) => sample.error?.message,
  newest: ({ newestAt }) => newestAt,
  'newest letter': ({ sample }) => sample.id,
  fingerprint: ({ fingerprint }) => fingerprint,
};

async function letterList({ given, deadLetters }: Call<typeof LETTERS>): Promise<CommandResult> {
  const { all, limit, after } = given;
  const page = await deadLetters.list(filterOf(given), { open: all ? 'any' : true, limit, after });
  const list = listed(page, page.letters, LETTER_COLUMNS, NOTHING);
  const more = page.next === undefined ? [] : ['', `There is more: --after ${page.next}`];
  return { ...list, lines: [...list.lines, ...more] };
}

const LETTER_COLUMNS: Columns<DeadLetter> = {
  letter: ({ id }) => id,
  written: ({ createdAt }) => createdAt,
  queue: ({ queue }) => queue,
  reason: ({ reason }) => reason,
  tenant: ({ tenantId }) => tenantId,
  key: ({ operationKey }) => operationKey,
  attempts: ({ attempts }) => attempts,
  state: ({ resolved }) => resolved?.as ?? 'open',
  error: ({ error }) => error?.message,
};

const RESOLVE = {
  ...OPERATION,
  applied: flag('applied', 'the effect happened: the operation is completed'),
  result: text('result', '<json>', 'with --applied: what the handler would have returned'),
  notApplied: flag('not-applied', 'the effect did not happen: the operation runs again'),
  deadline: time('deadline', 'with --not-applied: a deadline in place of its producer’s (ISO 8601)'),
  ...ACTION,
};

export const resolve = command({
  name: 'resolve',
  summary: 'say of an operation in doubt whether its effect happened',
  operand: '[letter]',
  options: RESOLVE,
  async run({ given, operand, deadLetters }) {
    const verdict = verdictOf(given);
    const result = await deadLetters.resolve(letterOf(operand, given), verdict, given);
    const end = result.outcome === 'applied' ? 'the operation is completed' : 'the operation runs again';
    return done(result, `Letter ${result.letterId} ${isOrWouldBe(result)} resolved: ${end}.`);
  },
});

function verdictOf({
  applied: isApplied,
  notApplied: isNot,
  result,
  deadline,
}: Given<typeof RESOLVE>): EffectVerdict {
  if (isApplied === isNot) throw new WrongUsage('Give --applied or --not-applied.');
  if (isNot) {
    if (result !== undefined) throw new WrongUsage('--result needs --applied.');
    return Reconciliation.notApplied();
  }
  if (deadline !== undefined) throw new WrongUsage('--deadline needs --not-applied.');
  try {
    return Reconciliation.applied(result === undefined ? undefined : JSON.parse(result));
  } catch {
    throw new WrongUsage('--result is not JSON. Quote it for the shell: --result \'{"id":"ch_1"}\'');
  }
}

export const discard = command({
  name: 'discard',
  summary: 'close a letter for good; its operation stays dead',
  operand: '[letter]',
  options: { ...OPERATION, ...ACTION },
  async run({ given, operand, deadLetters }) {
    const result = await deadLetters.discard(letterOf(operand, given), given);
    return done(result, `Letter ${result.letterId} ${isOrWouldBe(result)} discarded.`);
  },
});

function isOrWouldBe({ dryRun }: { readonly dryRun: boolean }): string {
  return dryRun ? 'would be' : 'is';
}
