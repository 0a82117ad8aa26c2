import type { INestApplicationContext } from '@nestjs/common';
import { type Job, Worker } from 'bullmq';
import { type IdempotentProcessorOptions, putBackOperation, TransientError } from 'nestjs-idempotent-jobs';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, deliver, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { Gate, identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS, makePlace } from '../support/scenario.js';

describe.each(BACKENDS)('a queue with plain workers and idempotent ones, on %s', (backend) => {
  const apps = useApps();
  const workers = new Set<Worker>();
  afterEach(async () => {
    await Promise.all([...workers].map((worker) => worker.close()));
    workers.clear();
  });

  /** The effects of all workers of a place, by key. */
  type Effects = Map<unknown, number>;
  const noteIn = (effects: Effects, key: unknown): void => void effects.set(key, (effects.get(key) ?? 0) + 1);

  /** The version of the worker before the library, with its guard. */
  function plainWorker(place: Place, effects: Effects, hold?: Gate): Worker {
    const worker = new Worker(
      'charges',
      async (job: Job, token?: string) => {
        await putBackOperation(job, token);
        await hold?.pass();
        noteIn(effects, (job.data as { key?: string }).key);
      },
      { connection: place.connection, prefix: place.prefix, concurrency: 2 },
    );
    worker.on('error', () => undefined);
    workers.add(worker);
    return worker;
  }

  /** The version with the library. */
  function idempotentWorker(
    place: Place,
    effects: Effects,
    options: IdempotentProcessorOptions = {},
  ): Promise<INestApplicationContext> {
    const processor = processorOf(
      'charges',
      { effect: 'keyed', identify: identifyPlain, ...options },
      (_job, operation) => noteIn(effects, operation.operationKey),
    );
    return apps.beside(place, { queues: ['charges'], providers: [processor] });
  }

  it('rolling out: what the plain version does not finish, the new one does, each once', async () => {
    const place = await makePlace(backend);
    const effects: Effects = new Map();
    const producer = await apps.beside(place, { queues: ['charges'] });
    const hold = new Gate();
    const old = plainWorker(place, effects, hold);
    for (let index = 0; index < 8; index += 1) await deliver(producer, 'charges', `charge:${index}`);
    await hold.arrival;
    const app = await idempotentWorker(place, effects, { effect: 'unrepeatable' });
    await eventually(
      () => bullQueue(app, 'charges').getWaitingCount(),
      (waiting) => expect(waiting).toBe(0),
    );
    hold.open();
    await old.close();
    await eventually(
      () => [...effects.values()],
      (counts) => expect(counts).toEqual(Array.from({ length: 8 }, () => 1)),
    );
    expect(await lettersOf(app)).toEqual([]);
  });

  it('mixed: a plain worker leaves operations to the idempotent ones, and runs no effect with undefined fields', async () => {
    const place = await makePlace(backend);
    const effects: Effects = new Map();
    plainWorker(place, effects);
    const producer = await apps.beside(place, { queues: ['charges'] });
    const operation = (await enqueue(producer, 'charges', 'charge', { key: 'charge:new' }, 'charge:new')) as {
      jobId: string;
    };
    await deliver(producer, 'charges', 'charge:old');
    await eventually(
      () => bullQueue(producer, 'charges').getJob(operation.jobId),
      (job) => expect(job?.attemptsStarted).toBeGreaterThan(1),
    );
    await eventually(
      () => effects.get('charge:old'),
      (count) => expect(count).toBe(1),
    );
    expect([...effects.keys()]).toEqual(['charge:old']);
    expect(await bullQueue(producer, 'charges').getJob(operation.jobId)).toMatchObject({ attemptsMade: 0 });
    const app = await idempotentWorker(place, effects, { effect: 'unrepeatable' });
    expect(await settled(app, 'charge:new')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(effects.get('charge:new')).toBe(1);
  });

  it('rolling back and forth: what waits for its next attempt is left alone, and goes on where it was', async () => {
    const place = await makePlace(backend);
    const effects: Effects = new Map();
    const door = { isOpen: false };
    const processor = processorOf(
      'charges',
      { effect: 'keyed', identify: identifyPlain, retry: { attempts: 5, backoff: { baseMs: 1_000 } } },
      (_job, operation) => {
        if (!door.isOpen) throw new TransientError('the bank is closed');
        noteIn(effects, operation.operationKey);
      },
    );
    const first = await apps.beside(place, { queues: ['charges'], providers: [processor] });
    const operation = (await enqueue(first, 'charges', 'charge', { key: 'charge:1' }, 'charge:1')) as {
      jobId: string;
    };
    await eventually(
      () => outcomeOf(first, 'charge:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying' }),
    );
    await apps.close(first);

    const old = plainWorker(place, effects);
    const producer = await apps.beside(place, { queues: ['charges'] });
    await deliver(producer, 'charges', 'charge:2');
    const starts = async () =>
      (await bullQueue(producer, 'charges').getJob(operation.jobId))?.attemptsStarted ?? 0;
    const before = await starts();
    await eventually(starts, (seen) => expect(seen).toBeGreaterThan(before));
    await eventually(
      () => [...effects.keys()],
      (keys) => expect(keys).toEqual(['charge:2']),
    );
    await old.close();

    door.isOpen = true;
    const again = await apps.beside(place, { queues: ['charges'], providers: [processor] });
    const outcome = await settled(again, 'charge:1');
    expect(outcome).toMatchObject({ status: 'completed' });
    expect(outcome.attempts).toBeGreaterThan(1);
    expect(effects.get('charge:1')).toBe(1);
    expect(await lettersOf(again)).toEqual([]);
  });
});
