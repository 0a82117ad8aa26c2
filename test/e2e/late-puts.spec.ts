import type { LocalRedis } from 'local-servers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue } from '../support/ledger.js';
import { HAS_OWN_REDIS, placeOn, startOwnRedis } from '../support/own-redis.js';
import { dataSourceOf } from '../support/scenario.js';

describe.skipIf(!HAS_OWN_REDIS)('puts while Redis is away', () => {
  const apps = useApps();
  let redis: LocalRedis;
  beforeAll(async () => {
    redis = await startOwnRedis();
  });
  afterAll(() => redis.stop());

  it('do not wait in the process for Redis to come back, to arrive when nobody wants them any more', async () => {
    const place = await placeOn(redis);
    const app = await apps.beside(place, { queues: ['charges'], jobs: { dispatch: { pollMs: 50 } } });
    const ledger = dataSourceOf(app);
    await enqueue(app, 'charges', 'charge', {}, 'charge:0');
    await eventually(
      () => bullQueue(app, 'charges').getWaitingCount(),
      (waiting) => expect(waiting).toBe(1),
    );
    await redis.kill();
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    // Its put is under way until the hold on it ends, and it is taken again.
    const heldUntil = async (): Promise<number> => {
      const [row] = await ledger.query<{ due: Date }[]>(
        `SELECT dispatch_due_at AS due FROM job_outcomes WHERE operation_key = 'charge:1'`,
      );
      return (row as { due: Date }).due.getTime();
    };
    const first = await eventually(heldUntil, (due) => expect(due).toBeGreaterThan(Date.now() + 5_000));
    await eventually(heldUntil, (due) => expect(due).toBeGreaterThan(first), 30_000);
    await ledger.query(`DELETE FROM job_outcomes WHERE operation_key = 'charge:1'`);

    await redis.restart();
    await enqueue(app, 'charges', 'charge', {}, 'charge:2');
    const jobs = await eventually(
      () => bullQueue(app, 'charges').getJobs(),
      (found) => expect(JSON.stringify(found)).toContain('charge:2'),
      30_000,
    );
    expect(JSON.stringify(jobs)).not.toContain('charge:1');
  });

  it('straight to the queue fail, and are not sent later', async () => {
    const place = await placeOn(redis);
    const app = await apps.beside(place, { queues: ['charges'], jobs: { dispatch: { enabled: false } } });
    const queue = idempotentQueue(app, 'charges');
    const directly = { tenantId: 'acme', durability: 'queue' } as const;
    await queue.enqueue('charge', {}, { ...directly, operationKey: 'charge:0' });
    await redis.kill();
    await expect(queue.enqueue('charge', {}, { ...directly, operationKey: 'charge:1' })).rejects.toThrow(
      /not connected to Redis .*nothing was sent/,
    );
    await redis.restart();
    await eventually(
      () => queue.enqueue('charge', {}, { ...directly, operationKey: 'charge:2' }).catch(() => undefined),
      (enqueued) => expect(enqueued).toBeDefined(),
      30_000,
    );
    const jobs = await bullQueue(app, 'charges').getJobs();
    expect(JSON.stringify(jobs)).not.toContain('charge:1');
  });
});
