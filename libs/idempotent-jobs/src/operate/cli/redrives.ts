import { DEFAULT_PACE, MAX_RATE_PER_SECOND, type Redrive } from '../../dead-letters/bulk-redrive.js';
import { PROGRAM } from '../../operation/errors.js';
import { type Call, command, type CommandResult, flag, number, text, time, WrongUsage } from './command.js';
import { ACTION, FILTER, filterOf, letterOf } from './letters.js';
import { type Columns, done, listed } from './render.js';

const { ratePerSecond, canary, maxFailureShare } = DEFAULT_PACE;
const REDRIVE = {
  ...FILTER,
  queue: text('queue', '<name>', 'of this source queue; required for more than one letter'),
  ratePerSecond: number(
    'rate',
    [0, MAX_RATE_PER_SECOND],
    `of many: letters a second, at most ${MAX_RATE_PER_SECOND} (default: ${ratePerSecond})`,
  ),
  canary: number(
    'canary',
    [0, 1_000_000],
    `of many: how many go first and must have ended (default: ${canary})`,
  ),
  maxFailureShare: number(
    'max-failures',
    [0, 1],
    `of many: the share of failures above which it stops (default: ${maxFailureShare})`,
    '<share>',
  ),
  deadline: time('deadline', 'of one: a deadline in place of its producer’s (ISO 8601)'),
  ...ACTION,
};

export const redrive = command({
  name: 'redrive',
  summary: 'run the operation of a letter again, or those of all letters of a queue that match',
  operand: '[letter]',
  options: REDRIVE,
  run(call) {
    const { queue } = call.given;
    return queue === undefined ? redriveOne(call) : redriveMany(call, queue);
  },
});

const OF_MANY = [
  'ratePerSecond',
  'canary',
  'maxFailureShare',
  'reason',
  'fingerprint',
  'from',
  'until',
] as const;

async function redriveOne({
  given,
  operand,
  deadLetters,
  refuse,
}: Call<typeof REDRIVE>): Promise<CommandResult> {
  refuse(OF_MANY, 'needs --queue');
  const result = await deadLetters.redrive(letterOf(operand, given), given);
  const { outcome, letterId, dryRun } = result;
  const would = dryRun ? 'Would be ' : '';
  const line =
    outcome === 'redriven'
      ? `${would}redriven: the operation of letter ${letterId}.`
      : `${would}closed: letter ${letterId}, whose operation has completed meanwhile.`;
  return done(result, line);
}

async function redriveMany(
  { given, operand, deadLetters, refuse }: Call<typeof REDRIVE>,
  queue: string,
): Promise<CommandResult> {
  if (operand !== undefined) throw new WrongUsage('Name one letter, or --queue, not both.');
  refuse(['deadline'], 'is for one letter');
  const plan = await deadLetters.redriveMany({ ...filterOf(given), queue }, given);
  const { redriveId, letters, leftOut } = plan;
  const others =
    leftOut > 0
      ? ` ${leftOut} more match, but need a decision of their own: in doubt, expired, in conflict, or without an identity.`
      : '';
  const line =
    redriveId === undefined
      ? `Would redrive ${letters} letters of queue "${queue}".`
      : `Redrive ${redriveId} of ${letters} letters of queue "${queue}" has begun; an application carries it on. See: ${PROGRAM} redrives ${redriveId}`;
  return done({ ...plan, queue, dryRun: given.dryRun }, line + others);
}

const REDRIVES = {
  queue: text('queue', '<name>', 'of this source queue'),
  limit: number('limit', [1, 1000], 'how many, 1 to 1000 (default: 20)'),
  cancel: flag('cancel', 'end the redrive; what it has brought back goes on. Needs --actor and --note'),
  actor: text('actor', '<who>', 'with --cancel: who does this'),
  note: text('note', '<why>', 'with --cancel: why'),
  dryRun: flag('dry-run', 'with --cancel: only say what would be done'),
};

export const redrives = command({
  name: 'redrives',
  summary: 'show how far redrives of many are, or cancel one',
  operand: '[redrive]',
  options: REDRIVES,
  async run(call) {
    const { given, operand, deadLetters, refuse } = call;
    if (!given.cancel) refuse(['actor', 'note', 'dryRun'], 'needs --cancel');
    else if (operand === undefined) throw new WrongUsage('--cancel needs the id of a redrive.');
    if (operand === undefined) return redriveList(call);
    refuse(['queue', 'limit'], 'is for the list, not for one redrive');
    if (given.cancel) return cancel(call, operand);
    const found = await deadLetters.getRedrive(operand);
    return listed(found, [found], REDRIVE_COLUMNS, '');
  },
});

async function redriveList({ given, deadLetters }: Call<typeof REDRIVES>): Promise<CommandResult> {
  const found = await deadLetters.redrives(given);
  return listed({ redrives: found }, found, REDRIVE_COLUMNS, 'There is no redrive.');
}

async function cancel({ given, deadLetters }: Call<typeof REDRIVES>, id: string): Promise<CommandResult> {
  const { actor, note, dryRun } = given;
  if (actor === undefined) throw new WrongUsage('--actor is missing.');
  if (note === undefined) throw new WrongUsage('--note is missing.');
  const found = await (dryRun ? deadLetters.getRedrive(id) : deadLetters.cancelRedrive(id, { actor, note }));
  const json = { ...found, dryRun };
  if (dryRun && found.status !== 'running')
    return { exitCode: 1, json, lines: [`Redrive ${id} has ended: ${found.status}.`] };
  const left = `${found.progress.left} letters ${dryRun ? 'would be' : 'are'} left alone.`;
  return done(json, `${dryRun ? 'Would cancel' : 'Cancelled'} redrive ${id}; ${left}`);
}

const REDRIVE_COLUMNS: Columns<Redrive> = {
  redrive: ({ id }) => id,
  queue: ({ queue }) => queue,
  status: ({ status }) => status,
  letters: ({ letters }) => letters,
  left: ({ progress }) => progress.left,
  redriven: ({ progress }) => progress.redriven,
  'under way': ({ progress }) => progress.underWay,
  failed: ({ progress }) => progress.failed,
  begun: ({ createdAt }) => createdAt,
  by: ({ actor }) => actor,
  detail: ({ endedBecause }) => endedBecause,
};
