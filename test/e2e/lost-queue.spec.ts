import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { LocalRedis } from 'local-servers';
import { DispatchService } from 'nestjs-idempotent-jobs/operate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { Flood } from '../support/flood.js';
import { againIfDeadlocked, bullQueue, enqueue, idempotentQueue, settled } from '../support/ledger.js';
import { HAS_OWN_REDIS, placeOn, startOwnRedis } from '../support/own-redis.js';
import { processorOf } from '../support/processors.js';
import {
  ANY_BACKEND,
  BACKENDS,
  HAS_QUEUES_IN_POSTGRES,
  dataSourceOf,
  makePlace,
} from '../support/scenario.js';

/*
 * The queue loses what it knows while operations are under way. Their effect is the careful one, so that a second run
 * would be seen, and a doubt as well: each of them completes, once.
 */

describe.skipIf(!HAS_OWN_REDIS)('a Redis that loses its data under load', () => {
  const apps = useApps();
  let redis: LocalRedis;
  beforeAll(async () => {
    redis = await startOwnRedis();
  });
  afterAll(() => redis.stop());

  const ask = async <T>(question: (client: Redis) => Promise<T>): Promise<T> => {
    const client = new Redis(redis.url);
    try {
      return await question(client);
    } finally {
      client.disconnect();
    }
  };

  it('FLUSHALL in the middle of 5,000 operations: all complete, once', async () => {
    const flood = await Flood.begin(apps, await placeOn(redis), 5000);
    const { before, after } = await ask(async (client) => {
      const [keys, , left] = (await client.multi().dbsize().flushall().dbsize().exec()) ?? [];
      return { before: Number(keys?.[1]), after: Number(left?.[1]) };
    });
    expect(flood.ran).toBeLessThan(5000);
    expect(before).toBeGreaterThan(1000);
    expect(after).toBe(0);
    await flood.expectAllOnce();
  });

  it('killed and restarted empty in the middle of 5,000 operations: all complete, once', async () => {
    const flood = await Flood.begin(apps, await placeOn(redis), 5000);
    expect(await flood.unfinishedJobs()).toBeGreaterThan(0);
    const victim = redis.pid;
    await redis.kill();
    await redis.restart();
    expect(redis.pid).not.toBe(victim);
    expect(await ask((client) => client.dbsize())).toBeLessThan(100);
    await flood.expectAllOnce();
  });

  it('rolled back to a snapshot from the middle of 5,000 operations: all complete, once', async () => {
    const flood = await Flood.begin(apps, await placeOn(redis), 5000);
    const dump = join(redis.directory, 'dump.rdb');
    await ask((client) => client.save());
    await copyFile(dump, `${dump}.middle`);
    const inSnapshot = await flood.unfinishedJobs();
    expect(inSnapshot).toBeGreaterThan(2000);
    flood.goOn();
    await eventually(
      () => flood.unfinishedJobs(),
      (jobs) => expect(jobs).toBeLessThan(inSnapshot / 2),
    );
    await redis.kill();
    await copyFile(`${dump}.middle`, dump);
    await redis.restart();
    await eventually(
      () => flood.unfinishedJobs(),
      (jobs) => expect(jobs).toBeGreaterThan(inSnapshot / 2),
    );
    await flood.expectAllOnce();
  });

  it('away: operations of a queue that is elsewhere do not wait, and its own run when it is back', async () => {
    const place = await makePlace(ANY_BACKEND);
    const runs: string[] = [];
    const done = (_job: unknown, { operationKey }: { operationKey: string }): unknown =>
      runs.push(operationKey);
    const app = await apps.beside(place, {
      queues: ['here', { name: 'away', bullmq: { connection: { url: redis.url } } }],
      providers: [processorOf('here', {}, done), processorOf('away', {}, done)],
    });
    await redis.kill();
    try {
      const many = Array.from({ length: 600 }, (_, index) => ({
        name: 'work',
        payload: {},
        operationKey: `away:${index}`,
        tenantId: 'acme',
      }));
      await idempotentQueue(app, 'away').enqueueMany(many);
      for (let index = 0; index < 10; index += 1) {
        await enqueue(app, 'here', 'work', {}, `here:${index}`);
        await settled(app, `here:${index}`);
      }
      expect(runs).toHaveLength(10);
    } finally {
      await redis.restart();
    }
    // Otherwise what the dispatcher had in hand comes back when its hold ends, after ten seconds.
    await app.get(DispatchService).redispatchUnsettled({ queue: 'away' });
    await eventually(
      () => runs.length,
      (count) => expect(count).toBe(610),
    );
    expect(new Set(runs).size).toBe(610);
  });
});

/** More than are active at once, in each of its parts. */
const MANY = 400;

describe.each(BACKENDS)('a queue that is emptied under load, on %s', (backend) => {
  const apps = useApps();

  it('obliterated by force: all operations complete, once', async () => {
    const flood = await Flood.begin(apps, await makePlace(backend), MANY);
    const before = Date.now();
    expect(await flood.unfinishedJobsSince(before)).toBeGreaterThan(100);
    const queue = bullQueue(flood.app, 'charges');
    await againIfDeadlocked(() => queue.obliterate({ force: true }));
    expect(await flood.unfinishedJobsSince(before)).toBe(0);
    await flood.expectAllOnce();
  });

  it('drained and cleaned from a dashboard: all operations complete, once', async () => {
    const flood = await Flood.begin(apps, await makePlace(backend), MANY);
    const queue = bullQueue(flood.app, 'charges');
    const before = Date.now();
    const had = await flood.unfinishedJobsSince(before);
    await againIfDeadlocked(() => queue.drain(true));
    const cleaned = await againIfDeadlocked(() => queue.clean(0, 0, 'completed'));
    expect(cleaned.length).toBeGreaterThan(0);
    expect(await flood.unfinishedJobsSince(before)).toBeLessThan(had / 2);
    await flood.expectAllOnce();
  });
});

describe.runIf(HAS_QUEUES_IN_POSTGRES)('a queue on Postgres whose tables lose their data under load', () => {
  const apps = useApps();

  it('all its job rows are deleted: all operations complete, once', async () => {
    const flood = await Flood.begin(apps, await makePlace('postgres'), MANY);
    const [, deleted] = await againIfDeadlocked(() =>
      dataSourceOf(flood.app).query<[unknown, number]>('DELETE FROM bullmq.job'),
    );
    expect(deleted).toBeGreaterThan(MANY / 3);
    await flood.expectAllOnce();
  });

  it('rolled back to an earlier copy: all operations complete, once', async () => {
    const flood = await Flood.begin(apps, await makePlace('postgres'), MANY);
    const dataSource = dataSourceOf(flood.app);
    await dataSource.query('CREATE TABLE copy AS SELECT * FROM bullmq.job');
    const inCopy = await flood.unfinishedJobs();
    expect(inCopy).toBeGreaterThan(MANY / 3);
    flood.goOn();
    await eventually(
      () => flood.unfinishedJobs(),
      (jobs) => expect(jobs).toBeLessThan(inCopy / 2),
    );
    await dataSource.transaction(async (manager) => {
      await manager.query('LOCK TABLE bullmq.job');
      await manager.query('DELETE FROM bullmq.job');
      await manager.query('INSERT INTO bullmq.job SELECT * FROM copy');
    });
    await flood.expectAllOnce();
  });
});
