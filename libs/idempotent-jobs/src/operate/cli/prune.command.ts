import { type Command, DRY_RUN } from './command.js';
import { prunerOf } from './services.js';

/** Removes what is past its retention, as applications do now and then by themselves. */
export const prune: Command = {
  name: 'prune',
  summary: 'remove completed operations and resolved letters that are past their retention',
  options: { 'dry-run': DRY_RUN },
  async run({ values, database }) {
    const dryRun = values.flag('dry-run');
    const pruner = prunerOf(database);
    const pruned = dryRun ? await pruner.count() : await pruner.prune();
    const verb = dryRun ? 'Would remove' : 'Removed';
    const text = `${verb} ${pruned.operations} completed operations and ${pruned.letters} resolved letters.`;
    return { exitCode: 0, json: { ...pruned, dryRun }, lines: [text] };
  },
};
