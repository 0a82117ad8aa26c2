import type { Command } from './command.js';
import { refuseUnknownQueue } from './known-queue.js';
import { ledgerStatus } from './ledger-status.js';
import { type QueueDepths, queueDepths } from './queue-depths.js';
import { textTable } from './text-table.js';

const HEADERS = [
  'queue',
  'waiting',
  'active',
  'delayed',
  'failed',
  'pending',
  'retrying',
  'running',
  'in doubt',
  'letters',
  'oldest letter',
];

/** Where every queue stands, by BullMQ and by the ledger. */
export const status: Command = {
  name: 'status',
  summary: 'show every queue: what waits in BullMQ, what is unsettled in the ledger, what died',
  options: { queue: { value: '<name>', help: 'only this queue' } },
  async run({ values, database, env }) {
    const queue = values.text('queue');
    const all = await ledgerStatus(database);
    const queues = queue === undefined ? all : all.filter((one) => one.queue === queue);
    if (queues.length === 0) await refuseUnknownQueue(database, queue);
    const names = queues.map((one) => one.queue);
    const depths = await queueDepths(names, env['REDIS_URL'], values.text('prefix'), database);
    const lines = queues.map((one) => ({ ...one, bullmq: depths.of.get(one.queue) ?? null }));
    const rows = lines.map(({ bullmq, ...one }) => [
      one.queue,
      bullmq?.waiting,
      bullmq?.active,
      bullmq?.delayed,
      bullmq?.failed,
      one.pending,
      one.retrying,
      one.running,
      one.inDoubt,
      one.openLetters,
      one.oldestLetterAt,
    ]);
    return {
      exitCode: 0,
      json: { bullmq: depths.source, queues: lines },
      lines:
        queues.length === 0
          ? ['The ledger knows no queue yet.']
          : [...textTable(HEADERS, rows), ...hint(depths)],
    };
  },
};

function hint({ source }: QueueDepths): string[] {
  return source === 'none'
    ? [
        '',
        'REDIS_URL is not set, and BullMQ has no schema "bullmq" in DATABASE_URL: the depths of queues are not known.',
      ]
    : [];
}
