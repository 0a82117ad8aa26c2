import type { INestApplicationContext } from '@nestjs/common';
import type { Queue } from 'bullmq';
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

  /** Kills Redis, and waits until the queue knows: what was sent before may be sent again. */
  async function gone(app: INestApplicationContext): Promise<void> {
    const queue = bullQueue(app, 'charges');
    // A queue of BullMQ 5 has no backend between it and its client.
    const backend: ReturnType<Queue['getBackend']> = 'getBackend' in queue ? queue.getBackend() : queue;
    const client = await backend.client;
    await redis.kill();
    await eventually(
      () => client.status,
      (status) => expect(status).not.toBe('ready'),
    );
  }

  it('do not wait in the process for Redis to come back, to arrive when nobody wants them any more', async () => {
    const place = await placeOn(redis);
    const warnings: unknown[] = [];
    const app = await apps.beside(place, {
      queues: ['charges'],
      jobs: { dispatch: { pollMs: 50 } },
      logger: { log: ignore, error: ignore, warn: (message) => warnings.push(message) },
    });
    const ledger = dataSourceOf(app);
    await enqueue(app, 'charges', 'charge', {}, 'charge:0');
    await eventually(
      () => bullQueue(app, 'charges').getWaitingCount(),
      (waiting) => expect(waiting).toBe(1),
    );
    await gone(app);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    // Taken, it is due again when the hold on it ends: its put is under way.
    await eventually(
      () =>
        ledger.query<unknown[]>(
          `SELECT FROM job_outcomes WHERE operation_key = 'charge:1' AND dispatch_due_at > clock_timestamp()`,
        ),
      (held) => expect(held).toHaveLength(1),
    );
    await ledger.query(`DELETE FROM job_outcomes WHERE operation_key = 'charge:1'`);
    await eventually(
      () => JSON.stringify(warnings),
      (told) => expect(told).toContain('did not take'),
    );

    await redis.restart();
    await enqueue(app, 'charges', 'charge', {}, 'charge:2');
    const jobs = await eventually(
      () => bullQueue(app, 'charges').getJobs(),
      (found) => expect(JSON.stringify(found)).toContain('charge:2'),
    );
    expect(JSON.stringify(jobs)).not.toContain('charge:1');
  });

  it('straight to the queue fail, and are not sent later', async () => {
    const place = await placeOn(redis);
    const app = await apps.beside(place, { queues: ['charges'], jobs: { dispatch: { enabled: false } } });
    const queue = idempotentQueue(app, 'charges');
    const directly = { tenantId: 'acme', durability: 'queue' } as const;
    await queue.enqueue('charge', {}, { ...directly, operationKey: 'charge:0' });
    await gone(app);
    await expect(queue.enqueue('charge', {}, { ...directly, operationKey: 'charge:1' })).rejects.toThrow(
      /not connected to Redis .*nothing was sent/,
    );
    await redis.restart();
    await eventually(
      () => queue.enqueue('charge', {}, { ...directly, operationKey: 'charge:2' }).catch(() => undefined),
      (enqueued) => expect(enqueued).toBeDefined(),
    );
    const jobs = await bullQueue(app, 'charges').getJobs();
    expect(JSON.stringify(jobs)).not.toContain('charge:1');
  });
});

function ignore(): void {}
