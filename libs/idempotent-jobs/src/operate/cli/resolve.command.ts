import { type EffectVerdict, Reconciliation } from '../../operation/reconciliation.js';
import { ACTOR, type Command, DRY_RUN, NOTE } from './command.js';
import { actionOf, letterOf, OPERATION_OPTIONS } from './letter-options.js';
import { deadLettersOf } from './services.js';
import type { Values } from './values.js';
import { WrongUsage } from './wrong-usage.js';

/** Ends an operation in doubt with what a person found out. */
export const resolve: Command = {
  name: 'resolve',
  summary: 'say of an operation in doubt whether its effect happened',
  operand: '[letter]',
  options: {
    ...OPERATION_OPTIONS,
    applied: { help: 'the effect happened: the operation is completed' },
    result: { value: '<json>', help: 'with --applied: what the handler would have returned' },
    'not-applied': { help: 'the effect did not happen: the operation runs again' },
    deadline: {
      value: '<time>',
      help: 'with --not-applied: a deadline in place of its producer’s (ISO 8601)',
    },
    actor: ACTOR,
    note: NOTE,
    'dry-run': DRY_RUN,
  },
  async run({ values, database }) {
    const verdict = verdictOf(values);
    const deadline = values.date('deadline');
    const options = { ...actionOf(values), ...(deadline !== undefined && { deadline }) };
    const result = await deadLettersOf(database).resolve(letterOf(values), verdict, options);
    const end = result.outcome === 'applied' ? 'the operation is completed' : 'the operation runs again';
    const text = `Letter ${result.letterId} ${result.dryRun ? 'would be' : 'is'} resolved: ${end}.`;
    return { exitCode: 0, json: result, lines: [text] };
  },
};

function verdictOf(values: Values): EffectVerdict {
  const isApplied = values.flag('applied');
  if (isApplied === values.flag('not-applied')) throw new WrongUsage('Give --applied or --not-applied.');
  const result = values.text('result');
  if (!isApplied) {
    if (result !== undefined) throw new WrongUsage('--result needs --applied.');
    return Reconciliation.notApplied();
  }
  if (values.text('deadline') !== undefined) throw new WrongUsage('--deadline needs --not-applied.');
  try {
    return Reconciliation.applied(result === undefined ? undefined : JSON.parse(result));
  } catch {
    throw new WrongUsage('--result is not JSON. Quote it for the shell: --result \'{"id":"ch_1"}\'');
  }
}
