import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import { EventEmitter } from 'node:events';
import { chunks, type Contender, handle, payloadOf, QUEUE } from '../contender.js';
import { untilNoRow } from './until-no-row.js';

/**
 * graphile-worker 0.18, set up as its page on performance is (worker.graphile.org/docs/performance): a local queue of 500
 * jobs, and completions that are written together (`completeJobBatchDelay: 0`). Prepared statements are its default.
 *
 * What its result is worth, read in `dist/sql/*.js` of the installed package:
 *
 * - No result is stored. A job that succeeds is deleted, and what its handler returns is dropped; of a failed one the
 *   message of the last error is kept. So it does less work than the others here. A job key is forgotten with its job.
 * - A retry after a crash is not fenced: `completeJobs.js` deletes by id alone, whoever holds the lock now (failures do ask
 *   for `locked_by`).
 * - A job can run twice: locks are not renewed, and are taken from any job that has been locked for four hours
 *   (`resetLockedAt.js`), whether its worker lives or not. That is also how long a crashed worker's jobs wait.
 * - Isolation: single statements at Postgres's default (read committed); jobs are claimed with FOR UPDATE SKIP LOCKED.
 */
export const graphileWorker: Contender = {
  name: 'graphileWorker',
  async open({ databaseUrl }, concurrency) {
    const logger = new Logger(() => () => undefined);
    const utils = await makeWorkerUtils({ connectionString: databaseUrl, logger });
    await utils.migrate();
    let stop = (): Promise<unknown> => Promise.resolve();
    return {
      async fill(jobs) {
        for (const chunk of chunks(jobs))
          await utils.addJobs(
            chunk.map((number) => ({
              identifier: QUEUE,
              payload: payloadOf(number),
              jobKey: `charge-${number}`,
            })),
          );
      },
      async drain(countdown) {
        const events = new EventEmitter();
        events.on('job:complete', () => countdown.count());
        events.on('pool:fatalError', ({ error }) => countdown.fail(error));
        const runner = await run({
          connectionString: databaseUrl,
          concurrency,
          noHandleSignals: true,
          parsedCronItems: [],
          taskList: { [QUEUE]: () => handle().then(() => undefined) },
          logger,
          events,
          // Handlers and completions need no connection each; the page has one for each handler, of which there are 24.
          maxPoolSize: 25,
          preset: {
            worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
          },
        });
        stop = () => runner.stop();
        await countdown.over;
        await untilNoRow(databaseUrl, 'graphile_worker._private_jobs');
      },
      async close() {
        await stop();
        await utils.release();
      },
    };
  },
};
