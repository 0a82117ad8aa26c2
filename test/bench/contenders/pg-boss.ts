import { PgBoss } from 'pg-boss';
import { chunks, type Contender, handle, payloadOf, QUEUE } from '../contender.js';
import { untilNoRow } from './until-no-row.js';

/**
 * pg-boss 12.38, with the options that it offers for throughput: a worker that fetches a batch, fetches again at once while
 * batches are full (`burstWhenBatchFull`), and settles a batch in one statement that keeps the result of each job
 * (`perJobResults`; without it a batch of more than one keeps none). A batch is as large as there are handlers at once
 * elsewhere, and takes as long as the slowest of them. Several workers with smaller batches (`localConcurrency`) took more CPU
 * here, and were slower.
 *
 * What its result is worth, read in `dist/plans.js` of the installed package:
 *
 * - A result is stored per job, in `job.output`, and its row is kept for 7 days (`deleteAfterSeconds`). Nothing answers a
 *   second request with it: an id that is sent twice is inserted once, for as long as the row is there.
 * - A retry after a crash is fenced: a claim raises `retry_count`, and an outcome is written only if that is still the one
 *   that was fetched and the job is active (`attemptFence`).
 * - A job can run twice: a worker that is late runs on beside the one that replaces it, after `expireInSeconds` (15 min), or
 *   earlier with `heartbeatSeconds`. The handler is given no token to fence its own effect with. `transactional: true` makes
 *   one transaction of handler and outcome.
 * - Isolation: single statements at Postgres's default (read committed); jobs are claimed with FOR UPDATE SKIP LOCKED.
 */
export const pgBoss: Contender = {
  name: 'pgBoss',
  async open({ databaseUrl }, concurrency) {
    const boss = new PgBoss({ connectionString: databaseUrl, schedule: false });
    let onError = (error: unknown): void => console.error(error);
    boss.on('error', (error) => onError(error));
    await boss.start();
    await boss.createQueue(QUEUE);
    return {
      async fill(jobs) {
        for (const chunk of chunks(jobs))
          await boss.insert(
            QUEUE,
            chunk.map((number) => ({ id: uuidOf(number), data: payloadOf(number) })),
          );
      },
      async drain(countdown) {
        onError = (error) => countdown.fail(error);
        const options = { batchSize: concurrency, perJobResults: true, burstWhenBatchFull: true } as const;
        await boss.work(QUEUE, options, (batch) =>
          Promise.all(
            batch.map(async ({ id }) => {
              const output = await handle();
              countdown.count();
              return { id, status: 'completed' as const, output };
            }),
          ),
        );
        await countdown.over;
        await untilNoRow(databaseUrl, `pgboss.job WHERE name = '${QUEUE}' AND state <> 'completed'`);
      },
      close: () => boss.stop({ graceful: false }),
    };
  },
};

/** pg-boss takes no other ids. */
const uuidOf = (number: number): string => `00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`;
