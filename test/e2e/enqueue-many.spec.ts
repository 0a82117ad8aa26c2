import { Client } from 'pg';
import { InvalidPayloadError } from 'nestjs-idempotent-jobs/errors';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import { useProcesses } from '../support/processes.js';
import { processorOf } from '../support/processors.js';
import type { Place } from '../support/place.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { singly } from '../support/start-app.js';

const OPERATIONS = 10_000;
const MEBI = 1024 * 1024;

/** A connection that counts what is sent over it. */
async function countingClient(place: Place): Promise<{ client: Client; texts: string[] }> {
  const client = new Client({ connectionString: place.databaseUrl });
  await client.connect();
  const texts: string[] = [];
  const send = client.query.bind(client) as (...query: unknown[]) => unknown;
  client.query = ((...query: unknown[]) => {
    const [first] = query as [string | { text: string }];
    texts.push(typeof first === 'string' ? first : first.text);
    return send(...query);
  }) as Client['query'];
  return { client, texts };
}

describe.each(BACKENDS)('enqueueing many operations, on %s', (backend) => {
  const apps = useApps();
  const processes = useProcesses();
  const key = { operationKey: 'charge:1', tenantId: 'acme' };
  const requestsOf = (count: number, payloadOf: (index: number) => unknown = (index) => ({ index })) =>
    Array.from({ length: count }, (_, index) => ({
      name: 'charge',
      payload: payloadOf(index),
      operationKey: `charge:${index}`,
      tenantId: 'acme',
    }));

  it('ten thousand in one transaction take a few dozen statements, and are on their queue after it', async () => {
    const { app, place } = await apps.fresh(backend, { queues: [singly('charges')] });
    const { client, texts } = await countingClient(place);
    try {
      await client.query('BEGIN');
      const answers = await idempotentQueue(app, 'charges').enqueueMany(requestsOf(OPERATIONS), {
        transaction: client,
      });
      await client.query('COMMIT');
      expect(answers.filter(({ duplicate }) => duplicate === false)).toHaveLength(OPERATIONS);
      expect(answers[9_999]).toMatchObject({ operationKey: 'charge:9999', tenantId: 'acme' });
    } finally {
      await client.end();
    }
    expect(texts.filter((text) => text.includes('job_outcomes'))).toHaveLength(10);
    expect(texts.length).toBeLessThan(50);
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts(),
      ({ waiting = 0, paused = 0 }) => expect(waiting + paused).toBe(OPERATIONS),
    );
    expect(await dataSourceOf(app).query(`SELECT count(*)::integer AS rows FROM job_outcomes`)).toEqual([
      { rows: OPERATIONS },
    ]);
  });

  it('rivals with the same keys in another order all get their answer, and each operation is there once', async () => {
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      jobs: { dispatch: { enabled: false } },
    });
    const queue = idempotentQueue(app, 'charges');
    const requests = requestsOf(6000);
    const takenBack = async (): Promise<number> => {
      const [row] = await dataSourceOf(app).query<{ xact_rollback: string }[]>(
        'SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()',
      );
      return Number(row?.xact_rollback);
    };
    const before = await takenBack();
    const answers = await Promise.all([
      queue.enqueueMany(requests),
      queue.enqueueMany(requests.toReversed()),
      queue.enqueueMany(requests.toReversed()),
    ]);
    const added = answers.flat().filter(({ duplicate }) => duplicate === false);
    expect(new Set(added.map(({ operationKey }) => operationKey)).size).toBe(6000);
    expect(added).toHaveLength(6000);
    // They were in each other's way. Postgres counts what it takes back with a delay.
    await eventually(takenBack, (now) => expect(now).toBeGreaterThan(before));
  });

  it('160 MiB in one transaction fit through a heap of 96', async () => {
    const place = await makePlace(backend);
    const producer = processes.launch({ role: 'producer', place, operations: 320, payloadLength: MEBI / 2 }, [
      '--max-old-space-size=96',
    ]);
    expect(await producer.exited).toBe(0);
    const app = await apps.beside(place, { queues: ['charges'], jobs: { dispatch: { enabled: false } } });
    expect(await dataSourceOf(app).query('SELECT count(*)::integer AS rows FROM job_outcomes')).toEqual([
      { rows: 320 },
    ]);
    // Less would fit through a heap of 96 MiB in any case.
  }, 600_000);

  it('one that cannot be carried, after thousands that can, leaves none', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'] });
    const requests = requestsOf(2500, (index) => ({ amount: index === 2400 ? 1n : 1 }));
    await expect(idempotentQueue(app, 'charges').enqueueMany(requests)).rejects.toThrow(InvalidPayloadError);
    await dataSourceOf(app).transaction(async (transaction) => {
      await expect(idempotentQueue(app, 'charges').enqueueMany(requests, { transaction })).rejects.toThrow(
        InvalidPayloadError,
      );
    });
    await expect(
      idempotentQueue(app, 'charges').enqueueMany(requests, { durability: 'queue' }),
    ).rejects.toThrow(InvalidPayloadError);
    expect(await dataSourceOf(app).query('SELECT count(*)::integer AS rows FROM job_outcomes')).toEqual([
      { rows: 0 },
    ]);
    expect(await bullQueue(app, 'charges').getJobCountByTypes('waiting', 'active', 'completed')).toBe(0);
  });

  it('what the queue’s own sizeLimit would keep off it for ever is refused, alone and among others', async () => {
    const echo = processorOf('charges', { effect: 'keyed' }, () => 'done');
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [echo] });
    Object.assign(bullQueue(app, 'charges'), { jobsOpts: { sizeLimit: 300 } });
    const [fitting, ...others] = requestsOf(3, (index) => ({ text: 'x'.repeat(index * 1000) }));
    const queue = idempotentQueue(app, 'charges');
    await expect(queue.enqueueMany([fitting as NonNullable<typeof fitting>, ...others])).rejects.toThrow(
      /takes at most 300 \(defaultJobOptions.sizeLimit\)/,
    );
    await expect(queue.enqueue('charge', { text: 'x'.repeat(300) }, key)).rejects.toThrow(
      InvalidPayloadError,
    );
    expect(await dataSourceOf(app).query('SELECT operation_key FROM job_outcomes')).toEqual([]);
    await queue.enqueue('charge', {}, key);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('a payload of more bytes than allowed is refused, and nothing is changed', async () => {
    const echo = processorOf('charges', { effect: 'keyed' }, () => 'done');
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [echo],
      jobs: { enqueue: { maxPayloadBytes: 100 } },
    });
    // {"text":"…"} takes 11 bytes around the text; an é takes two.
    await enqueue(app, 'charges', 'charge', { text: 'x'.repeat(89) }, 'charge:1');
    await enqueue(app, 'charges', 'charge', { text: 'é'.repeat(44) }, 'charge:2');
    for (const text of ['x'.repeat(90), 'é'.repeat(45), 'x'.repeat(5000)]) {
      const refused = enqueue(app, 'charges', 'charge', { text }, 'charge:3');
      await expect(refused).rejects.toThrow(InvalidPayloadError);
      await expect(refused).rejects.toThrow('at most 100 are allowed');
    }
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed' });
    expect(await outcomeOf(app, 'charge:3')).toBeUndefined();
  });
});
