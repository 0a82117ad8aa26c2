import { DEFAULT_PACE, MAX_RATE_PER_SECOND } from '../../dead-letters/bulk-redrive.js';
import { PROGRAM } from '../../operation/program.js';
import { ACTOR, type Command, type CommandContext, type CommandResult, DRY_RUN, NOTE } from './command.js';
import { actionOf, FILTER_OPTIONS, filterOf, letterOf } from './letter-options.js';
import { deadLettersOf } from './services.js';
import { WrongUsage } from './wrong-usage.js';

const DEADLINE = 'deadline';
const PACE = ['rate', 'canary', 'max-failures'];

/** Runs dead operations again: one, or carefully all that match. */
export const redrive: Command = {
  name: 'redrive',
  summary: 'run the operation of a letter again, or those of all letters of a queue that match',
  operand: '[letter]',
  options: {
    ...FILTER_OPTIONS,
    queue: { value: '<name>', help: 'of this source queue; required for more than one letter' },
    rate: {
      value: '<n>',
      help: `of many: letters a second, at most ${MAX_RATE_PER_SECOND} (default: ${DEFAULT_PACE.ratePerSecond})`,
    },
    canary: {
      value: '<n>',
      help: `of many: how many go first and must have ended (default: ${DEFAULT_PACE.canary})`,
    },
    'max-failures': {
      value: '<share>',
      help: `of many: the share of failures above which it stops (default: ${DEFAULT_PACE.maxFailureShare})`,
    },
    [DEADLINE]: { value: '<time>', help: 'of one: a deadline in place of its producer’s (ISO 8601)' },
    actor: ACTOR,
    note: NOTE,
    'dry-run': DRY_RUN,
  },
  run(context) {
    return context.values.text('queue') === undefined ? redriveOne(context) : redriveMany(context);
  },
};

async function redriveOne({ values, database }: CommandContext): Promise<CommandResult> {
  values.refuse([...PACE, 'reason', 'fingerprint', 'from', 'until'], 'needs --queue');
  const deadline = values.date(DEADLINE);
  const options = { ...actionOf(values), ...(deadline !== undefined && { deadline }) };
  const result = await deadLettersOf(database).redrive(letterOf(values), options);
  const would = result.dryRun ? 'Would be ' : '';
  const done =
    result.outcome === 'redriven'
      ? `${would}redriven: the operation of letter ${result.letterId}.`
      : `${would}closed: letter ${result.letterId}, whose operation has completed meanwhile.`;
  return { exitCode: 0, json: result, lines: [done] };
}

async function redriveMany({ values, database }: CommandContext): Promise<CommandResult> {
  if (values.operand !== undefined) throw new WrongUsage('Name one letter, or --queue, not both.');
  values.refuse([DEADLINE], 'is for one letter');
  const queue = values.required('queue');
  const action = actionOf(values);
  const pace = {
    ratePerSecond: values.number('rate', 0, MAX_RATE_PER_SECOND),
    canary: values.number('canary', 0, 1_000_000),
    maxFailureShare: values.number('max-failures', 0, 1),
  };
  const given = Object.fromEntries(Object.entries(pace).filter(([, value]) => value !== undefined));
  const plan = await deadLettersOf(database).redriveMany(
    { ...filterOf(values), queue },
    { ...action, ...given },
  );
  const leftOut =
    plan.leftOut > 0
      ? ` ${plan.leftOut} more match, but need a decision of their own: in doubt, in conflict, or without an identity.`
      : '';
  const text =
    plan.redriveId === undefined
      ? `Would redrive ${plan.letters} letters of queue "${queue}".${leftOut}`
      : `Redrive ${plan.redriveId} of ${plan.letters} letters of queue "${queue}" has begun; an application carries it on. See: ${PROGRAM} redrives ${plan.redriveId}${leftOut}`;
  return { exitCode: 0, json: { ...plan, queue, dryRun: action.dryRun }, lines: [text] };
}
