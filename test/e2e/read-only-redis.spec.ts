import type { WorkerHost } from '@nestjs/bullmq';
import type { LoggerService } from '@nestjs/common';
import { Redis } from 'ioredis';
import type { LocalRedis } from 'local-servers';
import { OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, settled } from '../support/ledger.js';
import { HAS_OWN_REDIS, placeOn, startOwnRedis } from '../support/own-redis.js';
import { processorOf } from '../support/processors.js';

/** More often than a person would want to read it; idle workers try it that often within seconds. */
const OFTEN = 100;
const ENOUGH_LINES = 30;

describe.skipIf(!HAS_OWN_REDIS)('a Redis that takes no writes for a while', () => {
  const apps = useApps();
  let redis: LocalRedis;
  let admin: Redis;
  beforeAll(async () => {
    redis = await startOwnRedis();
    admin = new Redis(redis.url);
  });
  afterEach(() => void vi.restoreAllMocks());
  afterAll(async () => {
    admin.disconnect();
    await redis.stop();
  });

  it('is told of in a few lines, which say how often it was tried, and everything goes on afterwards', async () => {
    const lines: string[] = [];
    const keep = (message: unknown): void => void lines.push(String(message));
    const logger: LoggerService = { log: () => undefined, warn: keep, error: keep };
    // Where BullMQ tells of an error that nobody listens to.
    vi.spyOn(console, 'error').mockImplementation(keep);
    class Alerts {
      @OnDeadLetter()
      tell(): void {}
    }
    const processors = ['charges', 'receipts'].map((queue) =>
      processorOf(queue, { effect: 'natural' }, () => 'done'),
    );
    const options = { queues: ['charges', 'receipts'], providers: [...processors, Alerts], logger };
    const app = await apps.beside(await placeOn(redis), options);
    let errors = 0;
    for (const processor of processors)
      app.get<WorkerHost>(processor).worker.on('error', () => (errors += 1));

    // The replica of a server that is not there.
    await admin.replicaof('127.0.0.1', 1);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      async () => errors,
      (count) => expect(count).toBeGreaterThan(OFTEN),
    );
    await admin.replicaof('NO', 'ONE');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    await apps.close(app);

    expect(lines.length).toBeLessThan(ENOUGH_LINES);
    const counts = lines.flatMap((line) => {
      const [, count] = /^Worker of queue "charges": READONLY .* \((\d+) of these within /.exec(line) ?? [];
      return count === undefined ? [] : [Number(count)];
    });
    expect(counts.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(OFTEN / 4);
    for (const queue of ['charges', 'receipts'])
      expect(lines).toContainEqual(
        expect.stringMatching(new RegExp(`^Worker of queue "${queue}": READONLY`)),
      );
  });
});
