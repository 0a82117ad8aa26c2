import { IsInt } from 'class-validator';
import type { IdempotentProcessorOptions } from 'nestjs-idempotent-jobs';
import { describe, expect, it } from 'vitest';
import { useThieves } from '../support/answer-thief.js';
import { useApps } from '../support/apps.js';
import { bullQueue, deliver, enqueue, idempotentQueue, lettersOf, settled } from '../support/ledger.js';
import { identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

describe.each(BACKENDS)('answers of Postgres that are lost on the way, queues on %s', (backend) => {
  const thieves = useThieves();
  const apps = useApps();
  const start = async (processor: ReturnType<typeof processorOf>) => {
    const place = await makePlace(backend);
    const thief = await thieves.before(place.databaseUrl);
    const app = await apps.beside(
      { ...place, databaseUrl: thief.url },
      { queues: ['charges'], providers: [processor] },
    );
    return { app, thief };
  };

  it("the claim's: it is asked for again, and the handler runs once, as attempt 1", async () => {
    let calls = 0;
    const { app, thief } = await start(
      processorOf('charges', { identify: identifyPlain }, () => (calls += 1)),
    );
    // Of all statements only the claim names the effect.
    thief.steal('unrepeatable');
    await deliver(app, 'charges', 'charge:unanswered');
    expect(await settled(app, 'charge:unanswered')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(thief.stolen).toBe(1);
    expect(calls).toBe(1);
  });

  it("the claim's, of a job that nothing is to be run for: its letter says so, and nothing is in doubt", async () => {
    class Charge {
      @IsInt() amount!: number;
    }
    const { app, thief } = await start(
      processorOf('charges', { identify: identifyPlain, payload: Charge, leaseMs: 14_000 }, () => 1),
    );
    thief.holdBack('unrepeatable');
    await deliver(app, 'charges', 'charge:unanswered');
    const outcome = await settled(app, 'charge:unanswered');
    expect([outcome.status, outcome.doubtSince]).toEqual(['dead', undefined]);
    expect(thief.stolen).toBe(1);
    expect((await lettersOf(app)).map(({ reason }) => reason)).toEqual(['payload_invalid']);
  });

  it("that of the look at an old job's operation: its connection is given up, and the handler runs once", async () => {
    let calls = 0;
    const { app, thief } = await start(
      processorOf('charges', { identify: identifyPlain }, () => (calls += 1)),
    );
    thief.steal('FOR KEY SHARE');
    const timestamp = Date.now() - 5 * 24 * 60 * 60 * 1000;
    await bullQueue(app, 'charges').add('charge', { tenant: 'acme', key: 'charge:old' }, { timestamp });
    expect(await settled(app, 'charge:old')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(thief.stolen).toBe(1);
    expect(calls).toBe(1);
  });

  it("COMMIT's: the row decides, and the effect is there once", async () => {
    const steal: { next?: () => void } = {};
    const { app, thief } = await start(
      processorOf('charges', { effect: 'transactional' }, async (_job, operation) => {
        await operation.transaction.query('INSERT INTO reservations VALUES (1)');
        steal.next?.();
      }),
    );
    steal.next = () => thief.steal('COMMIT');
    await dataSourceOf(app).query('CREATE TABLE reservations (number integer)');
    await enqueue(app, 'charges', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
    expect(thief.stolen).toBe(1);
    expect(await dataSourceOf(app).query('SELECT * FROM reservations')).toEqual([{ number: 1 }]);
    expect(await lettersOf(app)).toEqual([]);
  });

  it.each<[string, IdempotentProcessorOptions, boolean]>([
    ['under its token', {}, false],
    ['by its run, where first attempts have no claim', { effect: 'natural', optimistic: true }, false],
    ['likewise, with what the handler enqueued', { effect: 'natural', optimistic: true }, true],
  ])("the outcome's: it is written again %s, and nothing runs twice", async (_how, options, enqueues) => {
    let calls = 0;
    const steal: { next?: () => void } = {};
    const { app, thief } = await start(
      processorOf('charges', options, ({ name }, operation) => {
        if (name === 'receipt') return 'sent';
        calls += 1;
        const queue = idempotentQueue(app, 'charges');
        if (enqueues) operation.enqueue(queue, 'receipt', {}, { operationKey: 'receipt:1' });
        steal.next?.();
        return 'the-only-result';
      }),
    );
    steal.next = () => thief.steal('the-only-result');
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: 'the-only-result',
    });
    expect(thief.stolen).toBe(1);
    expect(calls).toBe(1);
    if (enqueues) expect(await settled(app, 'receipt:1')).toMatchObject({ status: 'completed' });
  });
});
