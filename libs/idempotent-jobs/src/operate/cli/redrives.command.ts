import type { Redrive } from '../../dead-letters/bulk-redrive.js';
import { type Command, type CommandContext, type CommandResult } from './command.js';
import { refuseUnknownQueue } from './known-queue.js';
import { deadLettersOf } from './services.js';
import { textTable } from './text-table.js';
import { WrongUsage } from './wrong-usage.js';

/** How far redrives of many are; and their end. */
export const redrives: Command = {
  name: 'redrives',
  summary: 'show how far redrives of many are, or cancel one',
  operand: '[redrive]',
  options: {
    queue: { value: '<name>', help: 'of this source queue' },
    limit: { value: '<n>', help: 'how many, 1 to 1000 (default: 20)' },
    cancel: { help: 'end the redrive; what it has brought back goes on. Needs --actor and --note' },
    actor: { value: '<who>', help: 'with --cancel: who does this' },
    note: { value: '<why>', help: 'with --cancel: why' },
    'dry-run': { help: 'with --cancel: only say what would be done' },
  },
  run(context) {
    const { operand } = context.values;
    if (context.values.flag('cancel')) return cancel(context, operand);
    context.values.refuse(['actor', 'note', 'dry-run'], 'needs --cancel');
    return operand === undefined ? list(context) : one(context, operand);
  },
};

const LIST_OPTIONS = ['queue', 'limit'];
const FOR_LISTS = 'is for the list, not for one redrive';

async function one({ values, database }: CommandContext, id: string): Promise<CommandResult> {
  values.refuse(LIST_OPTIONS, FOR_LISTS);
  const found = await deadLettersOf(database).getRedrive(id);
  return { exitCode: 0, json: found, lines: tableOf([found]) };
}

async function list({ values, database }: CommandContext): Promise<CommandResult> {
  const queue = values.text('queue');
  const found = await deadLettersOf(database).redrives({
    ...(queue !== undefined && { queue }),
    limit: values.number('limit', 1, 1000) ?? 20,
  });
  if (found.length === 0) await refuseUnknownQueue(database, queue);
  return {
    exitCode: found.length > 0 ? 0 : 1,
    json: { redrives: found },
    lines: found.length > 0 ? tableOf(found) : ['There is no redrive.'],
  };
}

async function cancel({ values, database }: CommandContext, id: string | undefined): Promise<CommandResult> {
  if (id === undefined) throw new WrongUsage('--cancel needs the id of a redrive.');
  values.refuse(LIST_OPTIONS, FOR_LISTS);
  const action = { actor: values.required('actor'), note: values.required('note') };
  const service = deadLettersOf(database);
  const dryRun = values.flag('dry-run');
  const redrive = dryRun ? await service.getRedrive(id) : await service.cancelRedrive(id, action);
  const isRefused = dryRun && redrive.status !== 'running';
  const text = isRefused
    ? `Redrive ${id} has ended: ${redrive.status}.`
    : `${dryRun ? 'Would cancel' : 'Cancelled'} redrive ${id}; ${redrive.progress.left} letters ${dryRun ? 'would be' : 'are'} left alone.`;
  return { exitCode: isRefused ? 1 : 0, json: { ...redrive, dryRun }, lines: [text] };
}

function tableOf(found: readonly Redrive[]): string[] {
  return textTable(
    [
      'redrive',
      'queue',
      'status',
      'letters',
      'left',
      'redriven',
      'under way',
      'failed',
      'begun',
      'by',
      'because',
    ],
    found.map(({ id, queue, status, letters, progress, createdAt, actor, endedBecause }) => [
      id,
      queue,
      status,
      letters,
      progress.left,
      progress.redriven,
      progress.underWay,
      progress.failed,
      createdAt,
      actor,
      endedBecause,
    ]),
  );
}
