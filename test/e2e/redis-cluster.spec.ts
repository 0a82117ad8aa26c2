import {
  BullModule,
  OnQueueEvent,
  Processor,
  QueueEventsHost,
  QueueEventsListener,
  WorkerHost,
} from '@nestjs/bullmq';
import { Injectable, type Type } from '@nestjs/common';
import { FlowProducer, type Job } from 'bullmq';
import { Redis } from 'ioredis';
import type { LocalRedis, LocalRedisCluster } from 'local-servers';
import { PermanentError, TransientError } from 'nestjs-idempotent-jobs';
import { DeadLetterService, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { IdempotentJobsHealthIndicator } from 'nestjs-idempotent-jobs/observe';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { cli, jsonOf } from '../support/cli.js';
import { eventually } from '../support/eventually.js';
import { Flood } from '../support/flood.js';
import { bullQueue, enqueue, idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { HAS_OWN_REDIS } from '../support/own-redis.js';
import { ClusterClient, placeOnCluster, startOwnRedisCluster } from '../support/own-redis-cluster.js';
import type { Place } from '../support/place.js';
import { processorOf, Scripts } from '../support/processors.js';
import { makePlace } from '../support/scenario.js';
import { singly } from '../support/start-app.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };
const BY = { actor: 'ada', note: 'the bank is open again' };

/** The prefix of a queue that is to be on the first master: that of the library is on the second one. */
const ELSEWHERE = '{mails}';

describe.skipIf(!HAS_OWN_REDIS)('queues on a Redis Cluster', () => {
  let servers: LocalRedisCluster;
  let client: ClusterClient;
  beforeAll(async () => {
    servers = await startOwnRedisCluster();
    client = new ClusterClient(servers);
  });
  afterAll(async () => {
    client.disconnectAll();
    await servers.stop();
  });

  const keysOn = async ({ url }: LocalRedis): Promise<string[]> => {
    const redis = new Redis(url);
    try {
      return await redis.keys('*');
    } finally {
      redis.disconnect();
    }
  };
  /** The prefixes of the keys that each master has. */
  const prefixesByMaster = async (): Promise<string[][]> => {
    const keys = await Promise.all(servers.masters.map(keysOn));
    return keys.map((found) => [...new Set(found.map((key) => key.split(':')[0] as string))]);
  };

  describe('under the prefix that the library gives them', () => {
    let place: Place;
    const scripts = new Scripts();
    const heard: { completed: string[]; letters: unknown[]; announced: unknown[] } = {
      completed: [],
      letters: [],
      announced: [],
    };
    const app = useOneApp(async () => (place = await placeOnCluster(client)), {
      queues: [
        singly('charges'),
        singly('orders'),
        { name: 'hooks', bundle: { max: 20 } },
        { name: 'mails', bullmq: { prefix: ELSEWHERE } },
      ],
      providers: [
        ...['charges', 'orders', 'hooks', 'mails'].map((queue) =>
          processorOf(queue, { effect: 'keyed', retry: QUICK }, scripts.handler),
        ),
        listenerOf('charges', heard.completed),
        alertsOf('charges', heard.letters),
        announcerOf('mails-dlq', heard.announced),
      ],
    });
    const many = (name: string, count: number, tenantId: string) =>
      Array.from({ length: count }, (_, index) => ({
        name,
        payload: { index },
        operationKey: `${name}:${index}`,
        tenantId,
      }));
    /** A tenant whose operations note that they ran. */
    const noting = () => {
      const runs: string[] = [];
      const tenantId = scripts.tenantWith((_job, { operationKey }) => {
        runs.push(operationKey);
        return { ran: operationKey };
      });
      return { runs, tenantId };
    };

    it('an operation runs, and its duplicate does not', async () => {
      const { runs, tenantId } = noting();
      const options = { operationKey: 'charge:1', tenantId };
      await idempotentQueue(app(), 'charges').enqueue('charge', { amount: 5 }, options);
      expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({
        status: 'completed',
        result: { ran: 'charge:1' },
      });
      expect(await idempotentQueue(app(), 'charges').enqueue('charge', { amount: 5 }, options)).toMatchObject(
        { duplicate: true },
      );
      expect(runs).toEqual(['charge:1']);
    });

    it('a listener hears BullMQ’s events of a queue', async () => {
      const { runs, tenantId } = noting();
      const enqueued: string[] = [];
      // It hears only what happens once it listens.
      await eventually(
        async () => {
          const operationKey = `charge:${enqueued.length}`;
          const options = { operationKey, tenantId };
          enqueued.push((await idempotentQueue(app(), 'charges').enqueue('charge', {}, options)).jobId);
          await settled(app(), operationKey, tenantId);
          return enqueued.filter((jobId) => heard.completed.includes(jobId));
        },
        (completed) => expect(completed).not.toEqual([]),
      );
      expect(runs).toHaveLength(enqueued.length);
    });

    it('a job that is delivered again is answered with the recorded result', async () => {
      const { runs, tenantId } = noting();
      await enqueue(app(), 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId);
      const { jobId } = await settled(app(), 'charge:1', tenantId);
      const bull = bullQueue(app(), 'charges');
      const completed = (): Promise<Job> =>
        eventually(
          async () => (await bull.getJob(jobId)) as Job,
          (job) => expect(job.returnvalue).toEqual({ ran: 'charge:1' }),
        );
      const { name, data, opts } = await completed();
      await bull.remove(jobId);
      await bull.add(name, data, { ...opts, jobId });
      await completed();
      expect(runs).toEqual(['charge:1']);
    });

    it('many run once each, on several queues, in bundles or not, and lie on two masters', async () => {
      const { runs, tenantId } = noting();
      const before = await bullQueue(app(), 'hooks').getCompletedCount();
      await Promise.all(
        ['charges', 'hooks', 'mails'].map((queue) =>
          idempotentQueue(app(), queue).enqueueMany(many(queue, 200, tenantId)),
        ),
      );
      await eventually(
        () => runs.length,
        (count) => expect(count).toBe(600),
      );
      expect(new Set(runs).size).toBe(600);
      for (const queue of ['charges', 'hooks', 'mails'])
        expect(await settled(app(), `${queue}:199`, tenantId)).toMatchObject({ status: 'completed' });
      const bundles = await eventually(
        () => bullQueue(app(), 'hooks').getCompletedCount(),
        (completed) => expect(completed).toBeGreaterThan(before),
      );
      expect(bundles - before).toBeLessThan(200);
      expect(await prefixesByMaster()).toEqual([[ELSEWHERE], ['{bull}'], []]);
    });

    it('one that fails is retried', async () => {
      const tenantId = scripts.tenantWith((_job, { attempt }) => {
        if (attempt < 3) throw new TransientError('not yet');
        return { attempt };
      });
      await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
      expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({
        status: 'completed',
        attempts: 3,
        result: { attempt: 3 },
      });
    });

    it.each([
      ['charges', heard.letters],
      ['mails', heard.announced],
    ] as const)('one of %s that dies is announced, and runs when it is redriven', async (queue, told) => {
      let isOpen = false;
      const tenantId = scripts.tenantWith(() => {
        if (!isOpen) throw new PermanentError('closed');
        return 'done';
      });
      await enqueue(app(), queue, 'work', {}, 'work:1', tenantId);
      const [letter] = await eventually(
        () => lettersOf(app(), tenantId),
        (letters) => expect(letters).toHaveLength(1),
      );
      await eventually(
        () => told,
        (letters) => expect(letters).toContainEqual(expect.objectContaining({ letterId: letter?.id })),
      );
      isOpen = true;
      await app()
        .get(DeadLetterService)
        .redrive(letter?.id as string, BY);
      await eventually(
        () => outcomeOf(app(), 'work:1', tenantId),
        (outcome) => expect(outcome).toMatchObject({ status: 'completed', result: 'done' }),
      );
    });

    it('iterations of a schedule run', async () => {
      const { runs, tenantId } = noting();
      const queue = idempotentQueue(app(), 'charges');
      await queue.schedule('report', {}, { operationKey: 'report', tenantId, every: 200 });
      await eventually(
        () => runs.length,
        (count) => expect(count).toBeGreaterThanOrEqual(2),
      );
      expect(await queue.unschedule({ operationKey: 'report', tenantId })).toBe(true);
      expect(new Set(runs).size).toBe(runs.length);
    });

    it('a flow over two of them gives the parent the results of its children', async () => {
      const tenantId = scripts.tenantWith(async (job, { operationKey }) =>
        operationKey === 'order:1' ? Object.values(await job.getChildrenValues()) : { charged: operationKey },
      );
      const node = (queue: string, operationKey: string) =>
        idempotentQueue(app(), queue).flowJob('work', {}, { operationKey, tenantId });
      const flows = new FlowProducer({ connection: client });
      try {
        const children = [node('charges', 'charge:1'), node('charges', 'charge:2')];
        await flows.add({ ...node('orders', 'order:1'), children });
        const { result } = await settled(app(), 'order:1', tenantId);
        expect(result).toHaveLength(2);
        expect(result).toEqual(expect.arrayContaining([{ charged: 'charge:1' }, { charged: 'charge:2' }]));
      } finally {
        await flows.close();
      }
    });

    it('health and the command line see them, wherever they are', async () => {
      const { tenantId } = noting();
      const delayed = (queue: string) =>
        idempotentQueue(app(), queue).enqueue(
          'later',
          {},
          {
            operationKey: `later:${queue}`,
            tenantId,
            delayMs: 3_600_000,
          },
        );
      await Promise.all(['orders', 'mails'].map(delayed));
      await eventually(
        () => Promise.all(['orders', 'mails'].map((queue) => bullQueue(app(), queue).getDelayedCount())),
        (counts) => expect(counts).toEqual([1, 1]),
      );
      expect(await app().get(IdempotentJobsHealthIndicator).queue('orders')).toMatchObject({
        orders: { status: 'up', backend: 'redis', worker: 'running' },
      });
      // Each of its servers leads to the others.
      for (const { url } of servers.masters) {
        const env = { DATABASE_URL: place.databaseUrl, REDIS_URL: url };
        const status = async (...options: string[]) => cli(['status', ...options], env);
        expect(jsonOf(await status('--json', '--queue', 'orders'))).toMatchObject({
          bullmq: 'redis',
          queues: [{ queue: 'orders', bullmq: { delayed: 1 } }],
        });
        expect(jsonOf(await status('--json', '--queue', 'mails', '--prefix', ELSEWHERE))).toMatchObject({
          queues: [{ queue: 'mails', bullmq: { delayed: 1 } }],
        });
        const refused = await status('--prefix', 'shop');
        expect(refused).toMatchObject({ code: 2, stdout: '' });
        expect(refused.stderr).toContain(`prefix: '{shop}'`);
      }
    });
  });

  describe('whose prefix is the application’s', () => {
    const apps = useApps();
    // Nobody drops it while an application that was refused is still connecting to it.
    let place: Place;
    let own: ClusterClient;
    beforeAll(async () => {
      own = new ClusterClient(servers);
      place = await placeOnCluster(own);
    });
    afterAll(() => own.disconnectAll());
    const clue = (queue: string) =>
      `Queue "${queue}" is on a Redis Cluster, but its prefix "shop" has no hash tag`;

    it('are refused at boot where it has no hash tag: that of all queues', async () => {
      const shop = { ...place, prefix: 'shop' };
      await expect(apps.beside(shop, { queues: ['charges'] })).rejects.toThrow(ConfigurationError);
      await expect(apps.beside(shop, { queues: ['charges'] })).rejects.toThrow(clue('charges'));
    });

    it('are refused at boot where it has no hash tag, and where that of a worker is another one', async () => {
      const queues = ['orders', { name: 'charges', bullmq: { prefix: 'shop' } }];
      await expect(apps.beside(place, { queues })).rejects.toThrow(clue('charges'));
      for (const prefix of ['shop', '{shop}']) {
        const lost = processorOf('charges', {}, () => undefined, { prefix });
        await expect(apps.beside(place, { queues: ['charges'], providers: [lost] })).rejects.toThrow(
          `has the prefix "${prefix}", but the queue has "{bull}"`,
        );
      }
    });

    it('keep it where it has a hash tag, as queues do that are not the library’s', async () => {
      const app = await apps.beside(
        { ...place, prefix: '{shop}' },
        { queues: ['charges'], imports: [BullModule.registerQueue({ name: 'plain' })] },
      );
      const prefixes = ['charges', 'charges-dlq', 'plain'].map((queue) => bullQueue(app, queue).opts.prefix);
      expect(prefixes).toEqual(['{shop}', '{shop}', '{shop}']);
    });

    it('have nothing to do with those on another Redis of the application', async () => {
      const one = await makePlace('redis');
      const app = await apps.beside(one, {
        queues: ['here', { name: 'there', bullmq: { configKey: 'cluster' } }],
        imports: [BullModule.forRoot('cluster', { connection: own })],
      });
      const prefixes = ['here', 'here-dlq', 'there', 'there-dlq'].map(
        (queue) => bullQueue(app, queue).opts.prefix,
      );
      expect(prefixes).toEqual([one.prefix, one.prefix, '{bull}', '{bull}']);
    });
  });

  describe('whose masters are killed and come back empty', () => {
    const apps = useApps();

    it('one of them, in the middle of 1,000 operations: all complete, once', async () => {
      const flood = await Flood.begin(apps, await placeOnCluster(client), 1000);
      const keys = await Promise.all(servers.masters.map(keysOn));
      const victim = servers.masters[
        keys.findIndex((found) => found.some((key) => key.startsWith('{bull}')))
      ] as LocalRedis;
      expect(await flood.unfinishedJobs()).toBeGreaterThan(100);
      const { pid } = victim;
      await victim.kill();
      await victim.restart();
      expect(victim.pid).not.toBe(pid);
      expect((await keysOn(victim)).length).toBeLessThan(100);
      expect(flood.ran).toBeLessThan(1000);
      await flood.expectAllOnce();
    });

    it('all of them: nothing waits in the process for them to come back', async () => {
      const app = await apps.beside(await placeOnCluster(client), {
        queues: ['charges'],
        jobs: { dispatch: { enabled: false } },
      });
      const queue = idempotentQueue(app, 'charges');
      const put = (operationKey: string) =>
        queue.enqueue('charge', {}, { operationKey, tenantId: 'acme', durability: 'queue' });
      await put('charge:0');
      await Promise.all(servers.masters.map((master) => master.kill()));
      await eventually(
        () => client.status,
        (status) => expect(status).not.toBe('ready'),
      );
      await expect(put('charge:1')).rejects.toThrow(/not connected to Redis .*nothing was sent/);
      await Promise.all(servers.masters.map((master) => master.restart()));
      await eventually(
        () => put('charge:2').catch(() => undefined),
        (enqueued) => expect(enqueued).toBeDefined(),
      );
      const jobs = JSON.stringify(await bullQueue(app, 'charges').getJobs());
      expect(jobs).toContain('charge:2');
      expect(jobs).not.toContain('charge:1');
    });
  });
});

/** Notes the jobs of which BullMQ says that they are completed. */
function listenerOf(queue: string, completed: string[]): Type {
  @QueueEventsListener(queue)
  class Listener extends QueueEventsHost {
    @OnQueueEvent('completed')
    onCompleted({ jobId }: { jobId: string }): void {
      completed.push(jobId);
    }
  }
  return Listener;
}

function alertsOf(queue: string, letters: unknown[]): Type {
  @Injectable()
  class Alerts {
    @OnDeadLetter(queue)
    page(letter: unknown): void {
      letters.push(letter);
    }
  }
  return Alerts;
}

/** A plain processor of a dead-letter queue. */
function announcerOf(deadLetterQueue: string, letters: unknown[]): Type {
  @Processor(deadLetterQueue)
  class Announcer extends WorkerHost {
    async process(job: Job): Promise<void> {
      letters.push(job.data);
    }
  }
  return Announcer;
}
