import { DispatchService } from '../../dispatch/dispatch.service.js';
import { refuseUnknownQueue } from './known-queue.js';
import { type Command, DRY_RUN } from './command.js';

/** For the hour after a queue was lost. */
export const redispatch: Command = {
  name: 'redispatch',
  summary: 'put unsettled operations on their queues again, after a queue was lost',
  options: {
    queue: { value: '<name>', help: 'only those of this queue' },
    'older-than': { value: '<span>', help: 'only those asked for at least so long ago, e.g. 15m, 2h' },
    'dry-run': DRY_RUN,
  },
  async run({ values, database }) {
    const queue = values.text('queue');
    await refuseUnknownQueue(database, queue);
    const olderThanMs = values.durationMs('older-than');
    const dryRun = values.flag('dry-run');
    const report = await new DispatchService(database).redispatchUnsettled({
      ...(queue !== undefined && { queue }),
      ...(olderThanMs !== undefined && { olderThanMs }),
      dryRun,
    });
    const { operations, withoutPayload } = report;
    const lost =
      withoutPayload > 0
        ? ` ${withoutPayload} more are unsettled, but were delivered without the ledger: only their producers can put them again.`
        : '';
    return {
      exitCode: 0,
      json: { ...report, dryRun },
      lines: [
        `${operations} operations ${dryRun ? 'would be' : 'are'} due for their queues; the dispatchers of the applications put them there.${lost}`,
      ],
    };
  },
};
