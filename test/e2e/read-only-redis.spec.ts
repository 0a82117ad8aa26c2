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
const OFTEN = 50;
/** A repeated message is written again after ten seconds at the earliest. */
const REPEATS_MS = 10_000;
const QUEUES = ['charges', 'receipts'];

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
    const processors = QUEUES.map((queue) => processorOf(queue, { effect: 'natural' }, () => 'done'));
    const options = { queues: QUEUES, providers: [...processors, Alerts], logger };
    const app = await apps.beside(await placeOn(redis), options);
    const errors: string[] = [];
    for (const processor of processors) {
      const { worker } = app.get<WorkerHost>(processor);
      worker.on('error', ({ message }) => errors.push(`Worker of queue "${worker.name}": ${message}`));
    }

    const begun = performance.now();
    // The replica of a server that is not there.
    await admin.replicaof('127.0.0.1', 1);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => errors,
      (all) => {
        expect(all.length).toBeGreaterThan(OFTEN);
        for (const queue of QUEUES) expect(all).toContainEqual(readOnly(queue));
      },
      90_000,
    );
    await admin.replicaof('NO', 'ONE');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    await apps.close(app);

    const kinds = new Set(lines.map(kindOf)).size;
    expect(kinds).toBeLessThan(OFTEN / 2);
    // A kind has its first line, one at the end of each period, and a last one; on a loaded machine there may be another.
    expect(lines.length).toBeLessThanOrEqual(kinds * (4 + (performance.now() - begun) / REPEATS_MS));
    expect(lines.length).toBeLessThan(errors.length);
    for (const queue of QUEUES) {
      expect(lines).toContainEqual(readOnly(queue));
      expect(toldOf(queue, lines)).toBe(toldOf(queue, errors));
    }
  });
});

const readOnly = (queue: string): unknown =>
  expect.stringMatching(new RegExp(`^Worker of queue "${queue}": READONLY`));

const REPEATED = / \((\d+) of these within \d+ s\)$/;

/** Lines of one kind differ in their numbers. */
const kindOf = (line: string): string => line.replace(REPEATED, '').replace(/[0-9a-f]*\d[0-9a-f]*/g, '?');

/** How many errors of a queue's worker lines tell of: each of one, or of as many as it says. */
const toldOf = (queue: string, lines: readonly string[]): number =>
  lines
    .filter((line) => line.startsWith(`Worker of queue "${queue}": READONLY`))
    .reduce((sum, line) => sum + Number(REPEATED.exec(line)?.[1] ?? 1), 0);
