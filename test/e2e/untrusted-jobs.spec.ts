import { randomBytes, randomUUID } from 'node:crypto';
import type { INestApplicationContext } from '@nestjs/common';
import type { Job, JobsOptions } from 'bullmq';
import { IsNumber } from 'class-validator';
import { TransientError } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { UsageError } from 'nestjs-idempotent-jobs/errors';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { otelTracing } from 'nestjs-idempotent-jobs/otel';
import { beforeEach, describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  bullQueue,
  enqueue,
  idempotentQueue,
  type LetterRow,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { type Handler, identifyPlain, processorOf } from '../support/processors.js';
import { failStalled } from '../support/stalled.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const BY = { actor: 'ada', note: 'contract ended' };

/** The earliest time that a Date can hold, and Postgres cannot. */
const TOO_EARLY = '-271821-04-20T00:00:00.000Z';

interface Run {
  readonly tenantId: string;
  readonly operationKey: string;
  readonly data: unknown;
}

class ChargeDto {
  @IsNumber()
  amount!: number;
}

describe.each(BACKENDS)('what comes off a queue, on %s', (backend) => {
  const apps = useApps();

  /** What handlers were called with since the case began. */
  const runs: Run[] = [];
  const charge: Handler = (job, { tenantId, operationKey }) => {
    runs.push({ tenantId, operationKey, data: job.data });
    return 'charged';
  };
  const decline: Handler = (...delivery) => {
    charge(...delivery);
    throw new TransientError('the bank is closed');
  };

  // One application for all cases that do nothing to it or to the whole ledger. They leave no job behind
  // that is not done.
  const app = useOneApp(backend, {
    queues: ['charges', 'plain', 'single', 'closed', 'opened'],
    providers: [
      processorOf('charges', { effect: 'keyed' }, charge),
      processorOf('plain', { effect: 'keyed', identify: identifyPlain }, charge),
      processorOf('single', { effect: 'keyed', identify: identifyPlain, retry: { attempts: 1 } }, decline),
      processorOf('closed', { effect: 'keyed', payload: { charge: ChargeDto } }, charge),
      processorOf(
        'opened',
        { effect: 'keyed', payload: { charge: ChargeDto }, unlistedPayloads: 'accept' },
        charge,
      ),
    ],
    jobs: {
      retryPolicies: { patient: { attempts: 3, backoff: { baseMs: 1 } } },
      deadLetters: { editedRedrive: true },
    },
  });

  // Each case has tenants of its own.
  let acme: string;
  let globex: string;
  let victim: string;
  let earlier: ReadonlySet<string>;
  beforeEach(async () => {
    [acme, globex, victim] = ['acme', 'globex', 'victim'].map((name) => `${name}-${randomUUID()}`) as [
      string,
      string,
      string,
    ];
    runs.length = 0;
    earlier = new Set((await lettersOf(app())).map(({ id }) => id));
  });

  /** The letters of everybody since the case began. */
  const letters = async (): Promise<LetterRow[]> =>
    (await lettersOf(app())).filter(({ id }) => !earlier.has(id));

  const producer = useOneApp(backend, { queues: ['charges'] });

  /** What a library's job looks like, on the queue of an application that runs none. */
  async function aJobOfOurs(key = 'charge:1'): Promise<{ data: any; opts: JobsOptions }> {
    const queue = bullQueue(producer(), 'charges');
    await idempotentQueue(producer(), 'charges').enqueue(
      'charge',
      { amount: 5 },
      { operationKey: key, tenantId: acme, durability: 'queue' },
    );
    const [job] = await queue.getJobs();
    const { data, id, opts } = job as Job;
    await queue.remove(id as string);
    return { data, opts: { ...opts, jobId: id } };
  }

  const reasons = async (): Promise<string[]> => (await letters()).map(({ reason }) => reason);

  describe('data that looks like an envelope, under an id that the library did not derive', () => {
    const injected = (operation: object = {}): object => ({
      tenant: acme,
      key: 'charge:1',
      operation: { tenantId: victim, operationKey: 'charge:9', fingerprint: 'f', ...operation },
      payload: { amount: 1_000_000 },
    });

    it.each([
      ['an operation', {}],
      ['an iteration of a schedule', { isSchedule: true }],
      ['an operation with a row', { row: 1 }],
    ])('is plain data to a processor that identifies: %s', async (_title, operation) => {
      await bullQueue(app(), 'plain').add('charge', injected(operation));
      expect(await settled(app(), 'charge:1', acme)).toMatchObject({ status: 'completed' });
      expect(runs).toEqual([{ tenantId: acme, operationKey: 'charge:1', data: injected(operation) }]);
      expect(await outcomeOf(app(), 'charge:9', victim)).toBeUndefined();
    });

    it('chooses no retry policy for itself', async () => {
      await bullQueue(app(), 'single').add('charge', injected({ retryPolicy: 'patient' }));
      expect(await settled(app(), 'charge:1', acme)).toMatchObject({ status: 'dead', attempts: 1 });
      expect(runs).toHaveLength(1);
    });

    it.each([
      ['an id of BullMQ', {}],
      ['an id of its producer', { jobId: 'order-17' }],
    ])('is refused where nobody identifies, under %s', async (_title, opts) => {
      await bullQueue(app(), 'charges').add('charge', injected(), opts);
      await eventually(
        () => reasons(),
        (found) => expect(found).toEqual(['tenant_mismatch']),
      );
      expect(runs).toEqual([]);
    });

    it('belongs to the tenant that identify names, also when a tenant is erased', async () => {
      const day = { delay: 24 * 60 * 60 * 1000 };
      await bullQueue(app(), 'plain').add('charge', injected(), day);
      const retention = app().get(RetentionService);
      expect(await retention.erase({ tenantId: victim, ...BY })).toMatchObject({ jobs: 0 });
      expect(await retention.erase({ tenantId: acme, ...BY })).toMatchObject({ jobs: 1 });
    });

    it('is what an edited redrive runs, as it is', async () => {
      await bullQueue(app(), 'charges').add('charge', injected());
      const [letter] = await eventually(
        () => letters(),
        (found) => expect(found).toHaveLength(1),
      );
      const edit = { tenantId: acme, operationKey: 'charge:2' };
      await app()
        .get(DeadLetterService)
        .redriveEdited(letter?.id as string, edit, BY);
      await settled(app(), 'charge:2', acme);
      expect(runs).toEqual([{ ...edit, data: injected() }]);
    });
  });

  it.each([
    ['far in the future', (now: number) => now + 365 * 24 * 60 * 60 * 1000],
    ['beyond all calendars', () => 8.7e15],
  ])('a time of its own making makes no old job young: %s', async (_title, timestamp) => {
    await dataSourceOf(app()).query(
      `UPDATE job_queues SET forgotten_until = clock_timestamp() - interval '1 day' WHERE queue = 'plain'`,
    );
    await bullQueue(app(), 'plain').add(
      'charge',
      { tenant: acme, key: 'charge:1' },
      { timestamp: timestamp(Date.now()) },
    );
    await eventually(
      () => reasons(),
      (found) => expect(found).toEqual(['expired']),
    );
    expect(runs).toEqual([]);
  });

  describe('fields of an envelope that are of other types than the library writes', () => {
    const fields: [string, () => object, () => object][] = [
      ['no object for a signature', () => ({ signature: null }), () => ({})],
      ['a number for a signature', () => ({ signature: 5 }), () => ({})],
      ['a time beyond all calendars in a signature', () => ({ signature: { at: 1e300 } }), () => ({})],
      ['a text for a time in a signature', () => ({ signature: { at: 'now' } }), () => ({})],
      ['traces that are none', () => ({}), () => ({ trace: 5, redriveTrace: ['x'] })],
      ['a trace of traces', () => ({}), () => ({ trace: ['x'], redriveTrace: { traceparent: {} } })],
      ['a number for a policy', () => ({}), () => ({ retryPolicy: 5 })],
      ['an object for a fingerprint', () => ({}), () => ({ fingerprint: { of: ['x'] } })],
      ['a text for the mark of a schedule', () => ({}), () => ({ isSchedule: 'yes' })],
    ];

    const traced = useOneApp(backend, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'keyed' }, charge)],
      jobs: { tracing: otelTracing() },
    });

    it.each(fields)('decide nothing: %s', async (title, rest, operation) => {
      const { data, opts } = await aJobOfOurs(title);
      const changed = { ...data, ...rest(), operation: { ...data.operation, ...operation() } };
      await bullQueue(traced(), 'charges').add('charge', changed, opts);
      expect(await settled(traced(), title, acme)).toMatchObject({ status: 'completed', attempts: 1 });
      expect(runs.filter(({ operationKey }) => operationKey === title)).toHaveLength(1);
      expect(await lettersOf(traced())).toEqual([]);
    });

    it.each<[string, unknown]>([
      ['a deadline', { deadlineAt: { year: 2099 } }],
      ['the mark of a row', { row: 'soon' }],
    ])('make it a dead letter: %s', async (_title, operation) => {
      const { data, opts } = await aJobOfOurs();
      const changed = { ...data, operation: { ...data.operation, ...(operation as object) } };
      await bullQueue(app(), 'charges').add('charge', changed, opts);
      await eventually(
        () => reasons(),
        (found) => expect(found).toHaveLength(1),
      );
      expect(runs).toEqual([]);
    });

    it('make no old job young: the time in a signature that nobody has made', async () => {
      const { data, opts } = await aJobOfOurs();
      const dayAgo = Date.now() - 24 * 60 * 60 * 1000;
      await dataSourceOf(app()).query(
        `UPDATE job_queues SET forgotten_until = clock_timestamp() - interval '1 hour'
         WHERE queue = 'charges'`,
      );
      const signature = { alg: 'HS256', key: 'any', at: Date.now(), mac: 'AAAA' };
      await bullQueue(app(), 'charges').add('charge', { ...data, signature }, { ...opts, timestamp: dayAgo });
      await eventually(
        () => reasons(),
        (found) => expect(found).toEqual(['expired']),
      );
      expect(runs).toEqual([]);
    });
  });

  it('a job that BullMQ failed keeps no other one from its letter, whatever its data is', async () => {
    const { data, opts } = await aJobOfOurs();
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    const queue = bullQueue(app, 'charges');
    await queue.add('charge', data, { ...opts, jobId: `${opts.jobId}-other` });
    await failStalled(place, queue);
    await queue.add('charge', { ...data, signature: null, operation: { ...data.operation, row: {} } }, opts);
    await failStalled(place, queue);
    const heir = await apps.beside(place, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'keyed' }, () => 'never')],
      jobs: { recovery: { sweepMs: 100 } },
    });
    await eventually(
      () => lettersOf(heir),
      (found) => expect(found.length).toBeGreaterThanOrEqual(1),
    );
    expect(await settled(heir, 'charge:1', acme)).toMatchObject({ status: 'dead' });
  });

  describe('what Postgres cannot take', () => {
    const poisons: [string, () => Promise<[object, JobsOptions]>][] = [
      [
        'a deadline before all calendars',
        async () => {
          const { data, opts } = await aJobOfOurs();
          return [{ ...data, operation: { ...data.operation, deadlineAt: TOO_EARLY } }, opts];
        },
      ],
      [
        'a deadline that is none',
        async () => {
          const { data, opts } = await aJobOfOurs();
          return [{ ...data, operation: { ...data.operation, deadlineAt: 'soon' } }, opts];
        },
      ],
    ];
    if (backend === 'redis') {
      // BullMQ in Postgres refuses them itself.
      const plain = () => ({ tenant: acme, key: 'charge:1' });
      poisons.push(
        ['a NUL in the id', async () => [plain(), { jobId: 'order\0 17' }]],
        ['an id of kilobytes', async () => [plain(), { jobId: randomBytes(4000).toString('base64') }]],
      );
    }

    it.each(poisons)('is buried, and keeps nobody waiting: %s', async (_title, poison) => {
      const [data, opts] = await poison();
      const queue = bullQueue(app(), 'plain');
      await queue.pause();
      const poisoned = await queue.add('charge', data, opts);
      await queue.addBulk(
        Array.from({ length: 20 }, (_, index) => ({
          name: 'charge',
          data: { tenant: globex, key: `charge:${index}` },
        })),
      );
      await queue.resume();
      const buried = await eventually(
        () => letters(),
        (found) => expect(found).toHaveLength(1),
      );
      expect(buried).toMatchObject([{ reason: 'payload_invalid', queue: 'plain' }]);
      await eventually(
        () => queue.getJobState(poisoned.id as string),
        (state) => expect(state).toBe('failed'),
      );
      for (let index = 0; index < 20; index += 1)
        expect(await settled(app(), `charge:${index}`, globex)).toMatchObject({
          status: 'completed',
          attempts: 1,
        });
    });

    it.each([
      ['claimed', { effect: 'keyed' }],
      ['not claimed', { effect: 'natural', optimistic: true }],
    ] as const)(
      'is buried also where nothing but Postgres knows it, and what was asked for together with it runs: %s',
      async (how, options) => {
        const { app } = await apps.fresh(backend, {
          queues: ['charges'],
          providers: [processorOf('charges', { ...options, identify: identifyPlain }, charge)],
        });
        const ledger = dataSourceOf(app);
        await ledger.query(`
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE 'not in my table' USING ERRCODE = '22023'; END $$`);
        await ledger.query(`
        CREATE TRIGGER refuse BEFORE INSERT ON job_outcomes FOR EACH ROW
        WHEN (NEW.operation_key = 'charge:poison') EXECUTE FUNCTION refuse()`);
        const queue = bullQueue(app, 'charges');
        const keys = ['charge:1', 'charge:poison', 'charge:2', 'charge:3'];
        await queue.addBulk(keys.map((key) => ({ name: 'charge', data: { tenant: 'acme', key } })));
        const buried = await eventually(
          () => lettersOf(app),
          (found) => expect(found).toHaveLength(1),
        );
        expect(buried).toMatchObject([
          { reason: 'payload_invalid', payload: { tenant: 'acme', key: 'charge:poison' } },
        ]);
        await eventually(
          () => queue.getJobCounts('failed', 'completed', 'delayed'),
          (counts) => expect(counts).toEqual({ failed: 1, completed: 3, delayed: 0 }),
        );
        // Without a claim, Postgres is told of it only when the handler has run.
        const ran = how === 'claimed' ? keys.filter((key) => key !== 'charge:poison') : keys;
        expect(runs.map(({ operationKey }) => operationKey).toSorted()).toEqual(ran.toSorted());
      },
    );

    it('is refused at the producer', async () => {
      const queue = idempotentQueue(producer(), 'charges');
      const options = { operationKey: 'charge:1', tenantId: 'acme', deadline: new Date(TOO_EARLY) };
      await expect(queue.enqueue('charge', {}, options)).rejects.toThrow(UsageError);
      await expect(queue.enqueue('charge', {}, { ...options, durability: 'queue' })).rejects.toThrow(
        UsageError,
      );
      expect(() => queue.flowJob('charge', {}, options)).toThrow(UsageError);
    });
  });

  describe('a map of payload classes', () => {
    it('is closed: a job of another name is buried', async () => {
      await enqueue(app(), 'closed', 'refund', { amount: 'all of it' }, 'refund:1', acme);
      await enqueue(app(), 'closed', 'constructor', {}, 'constructor:1', acme);
      await enqueue(app(), 'closed', 'charge', { amount: 5 }, 'charge:1', acme);
      await settled(app(), 'charge:1', acme);
      expect(await settled(app(), 'refund:1', acme)).toMatchObject({ status: 'dead' });
      expect(await settled(app(), 'constructor:1', acme)).toMatchObject({ status: 'dead' });
      expect(await reasons()).toEqual(['payload_invalid', 'payload_invalid']);
      expect(runs.map(({ operationKey }) => operationKey)).toEqual(['charge:1']);
    });

    it('is opened by unlistedPayloads', async () => {
      await enqueue(app(), 'opened', 'ping', {}, 'ping:1', acme);
      await enqueue(app(), 'opened', 'charge', { amount: 'all of it' }, 'charge:1', acme);
      expect(await settled(app(), 'ping:1', acme)).toMatchObject({ status: 'completed' });
      expect(await settled(app(), 'charge:1', acme)).toMatchObject({ status: 'dead' });
      expect(runs.map(({ operationKey }) => operationKey)).toEqual(['ping:1']);
    });
  });

  describe('a job that was put from a row which is gone', () => {
    /** A dispatched job, as a put that comes late would bring it. */
    async function dispatched(): Promise<{
      app: INestApplicationContext;
      late: () => Promise<unknown>;
      run: () => Promise<Run[]>;
    }> {
      const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
      await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1');
      const queue = bullQueue(app, 'charges');
      const [job] = await eventually(
        () => queue.getJobs(['waiting']),
        (jobs) => expect(jobs).toHaveLength(1),
      );
      const { name, data, opts, id } = job as Job;
      return {
        app,
        late: () => queue.add(name, data, { ...opts, jobId: id as string }),
        async run() {
          const processor = processorOf('charges', { effect: 'keyed' }, charge);
          await apps.beside(place, { queues: ['charges'], providers: [processor] });
          await eventually(
            () => queue.getFailedCount(),
            (failed) => expect(failed).toBe(1),
          );
          return runs;
        },
      };
    }

    it('because it was pruned: is buried as expired, and not run', async () => {
      const { app, run } = await dispatched();
      await dataSourceOf(app).query('DELETE FROM job_outcomes');
      expect(await run()).toEqual([]);
      expect(await lettersOf(app)).toMatchObject([
        { reason: 'expired', operation_key: 'charge:1', payload: { amount: 5 } },
      ]);
      expect(await outcomeOf(app, 'charge:1')).toBeUndefined();
    });

    it('because its tenant was erased: is not run, and brings nothing of the tenant back', async () => {
      const { app, late, run } = await dispatched();
      await app.get(RetentionService).erase({ tenantId: 'acme', ...BY });
      await late();
      expect(await run()).toEqual([]);
      const buried = await lettersOf(app);
      expect(buried).toMatchObject([{ reason: 'expired', tenant_id: null, payload: null }]);
      expect(JSON.stringify(buried)).not.toMatch(/acme|charge:1"/);
      const [failed] = await bullQueue(app, 'charges').getFailed();
      expect(JSON.stringify([failed?.data, failed?.failedReason])).not.toMatch(/acme|amount/);
    });
  });
});
