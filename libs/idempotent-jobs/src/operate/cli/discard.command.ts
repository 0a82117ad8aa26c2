import { ACTOR, type Command, DRY_RUN, NOTE } from './command.js';
import { actionOf, letterOf, OPERATION_OPTIONS } from './letter-options.js';
import { deadLettersOf } from './services.js';

/** Closes a letter whose operation nobody wants any more. */
export const discard: Command = {
  name: 'discard',
  summary: 'close a letter for good; its operation stays dead',
  operand: '[letter]',
  options: { ...OPERATION_OPTIONS, actor: ACTOR, note: NOTE, 'dry-run': DRY_RUN },
  async run({ values, database }) {
    const result = await deadLettersOf(database).discard(letterOf(values), actionOf(values));
    const text = `Letter ${result.letterId} ${result.dryRun ? 'would be' : 'is'} discarded.`;
    return { exitCode: 0, json: result, lines: [text] };
  },
};
