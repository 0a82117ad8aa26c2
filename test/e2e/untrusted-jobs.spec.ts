import { randomBytes } from 'node:crypto';
import type { INestApplicationContext } from '@nestjs/common';
import type { Job, JobsOptions } from 'bullmq';
import { IsNumber } from 'class-validator';
import {
  type CurrentOperation,
  type IdempotentProcessorOptions,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { UsageError } from 'nestjs-idempotent-jobs/errors';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { otelTracing } from 'nestjs-idempotent-jobs/otel';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { identifyPlain, processorOf } from '../support/processors.js';
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

describe.each(BACKENDS)('what comes off a queue, on %s', (backend) => {
  const apps = useApps();

  /** An application that notes what its handler is called with. */
  async function start(
    options: IdempotentProcessorOptions = {},
    rest: object = {},
    handler: (job: Job, operation: CurrentOperation) => unknown = () => 'charged',
  ): Promise<{ app: INestApplicationContext; runs: Run[] }> {
    const runs: Run[] = [];
    const processor = processorOf('charges', { effect: 'keyed', ...options }, (job, operation) => {
      runs.push({ tenantId: operation.tenantId, operationKey: operation.operationKey, data: job.data });
      return handler(job, operation);
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], ...rest });
    return { app, runs };
  }

  const producer = useOneApp(backend, { queues: ['charges'] });

  /** What a library's job looks like, on the queue of an application that runs none. */
  async function aJobOfOurs(
    key = 'charge:1',
    options: object = {},
  ): Promise<{ data: any; opts: JobsOptions }> {
    const queue = bullQueue(producer(), 'charges');
    await idempotentQueue(producer(), 'charges').enqueue(
      'charge',
      { amount: 5 },
      { operationKey: key, tenantId: 'acme', durability: 'queue', ...options },
    );
    const [job] = await queue.getJobs();
    const { data, id, opts } = job as Job;
    await queue.remove(id as string);
    return { data, opts: { ...opts, jobId: id } };
  }

  const reasons = async (app: INestApplicationContext): Promise<string[]> =>
    (await lettersOf(app)).map(({ reason }) => reason);

  describe('data that looks like an envelope, under an id that the library did not derive', () => {
    const injected = (operation: object = {}): object => ({
      tenant: 'acme',
      key: 'charge:1',
      operation: { tenantId: 'victim', operationKey: 'charge:9', fingerprint: 'f', ...operation },
      payload: { amount: 1_000_000 },
    });

    it.each([
      ['an operation', {}],
      ['an iteration of a schedule', { isSchedule: true }],
      ['an operation with a row', { row: 1 }],
    ])('is plain data to a processor that identifies: %s', async (_title, operation) => {
      const { app, runs } = await start({ identify: identifyPlain });
      await bullQueue(app, 'charges').add('charge', injected(operation));
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
      expect(runs).toEqual([{ tenantId: 'acme', operationKey: 'charge:1', data: injected(operation) }]);
      expect(await outcomeOf(app, 'charge:9', 'victim')).toBeUndefined();
    });

    it('chooses no retry policy for itself', async () => {
      const { app, runs } = await start(
        { identify: identifyPlain, retry: { attempts: 1 } },
        { jobs: { retryPolicies: { patient: { attempts: 3, backoff: { baseMs: 1 } } } } },
        () => {
          throw new TransientError('the bank is closed');
        },
      );
      await bullQueue(app, 'charges').add('charge', injected({ retryPolicy: 'patient' }));
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 1 });
      expect(runs).toHaveLength(1);
    });

    it.each([
      ['an id of BullMQ', {}],
      ['an id of its producer', { jobId: 'order-17' }],
    ])('is refused where nobody identifies, under %s', async (_title, opts) => {
      const { app, runs } = await start();
      await bullQueue(app, 'charges').add('charge', injected(), opts);
      await eventually(
        () => reasons(app),
        (found) => expect(found).toEqual(['tenant_mismatch']),
      );
      expect(runs).toEqual([]);
    });

    it('belongs to the tenant that identify names, also when a tenant is erased', async () => {
      const { app } = await start({ identify: identifyPlain });
      const day = { delay: 24 * 60 * 60 * 1000 };
      await bullQueue(app, 'charges').add('charge', injected(), day);
      const retention = app.get(RetentionService);
      expect(await retention.erase({ tenantId: 'victim', ...BY })).toMatchObject({ jobs: 0 });
      expect(await retention.erase({ tenantId: 'acme', ...BY })).toMatchObject({ jobs: 1 });
    });

    it('is what an edited redrive runs, as it is', async () => {
      const { app, runs } = await start({}, { jobs: { deadLetters: { editedRedrive: true } } });
      await bullQueue(app, 'charges').add('charge', injected());
      const [letter] = await eventually(
        () => lettersOf(app),
        (found) => expect(found).toHaveLength(1),
      );
      const edit = { tenantId: 'acme', operationKey: 'charge:2' };
      await app.get(DeadLetterService).redriveEdited(letter?.id as string, edit, BY);
      await settled(app, 'charge:2');
      expect(runs).toEqual([{ ...edit, data: injected() }]);
    });
  });

  it.each([
    ['far in the future', (now: number) => now + 365 * 24 * 60 * 60 * 1000],
    ['beyond all calendars', () => 8.7e15],
  ])('a time of its own making makes no old job young: %s', async (_title, timestamp) => {
    const { app, runs } = await start({ identify: identifyPlain });
    await dataSourceOf(app).query(
      `UPDATE job_queues SET forgotten_until = clock_timestamp() - interval '1 day'`,
    );
    await bullQueue(app, 'charges').add(
      'charge',
      { tenant: 'acme', key: 'charge:1' },
      { timestamp: timestamp(Date.now()) },
    );
    await eventually(
      () => reasons(app),
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

    const runs: string[] = [];
    const traced = useOneApp(backend, {
      queues: ['charges'],
      providers: [
        processorOf('charges', { effect: 'keyed' }, (_job, { operationKey }) => runs.push(operationKey)),
      ],
      jobs: { tracing: otelTracing() },
    });

    it.each(fields)('decide nothing: %s', async (title, rest, operation) => {
      const { data, opts } = await aJobOfOurs(title);
      const changed = { ...data, ...rest(), operation: { ...data.operation, ...operation() } };
      await bullQueue(traced(), 'charges').add('charge', changed, opts);
      expect(await settled(traced(), title)).toMatchObject({ status: 'completed', attempts: 1 });
      expect(runs.filter((key) => key === title)).toHaveLength(1);
      expect(await lettersOf(traced())).toEqual([]);
    });

    it.each<[string, unknown]>([
      ['a deadline', { deadlineAt: { year: 2099 } }],
      ['the mark of a row', { row: 'soon' }],
    ])('make it a dead letter: %s', async (_title, operation) => {
      const { data, opts } = await aJobOfOurs();
      const { app, runs } = await start();
      const changed = { ...data, operation: { ...data.operation, ...(operation as object) } };
      await bullQueue(app, 'charges').add('charge', changed, opts);
      await eventually(
        () => reasons(app),
        (found) => expect(found).toHaveLength(1),
      );
      expect(runs).toEqual([]);
    });

    it('make no old job young: the time in a signature that nobody has made', async () => {
      const { data, opts } = await aJobOfOurs();
      const { app, runs } = await start();
      const dayAgo = Date.now() - 24 * 60 * 60 * 1000;
      await dataSourceOf(app).query(
        `UPDATE job_queues SET forgotten_until = clock_timestamp() - interval '1 hour'`,
      );
      const signature = { alg: 'HS256', key: 'any', at: Date.now(), mac: 'AAAA' };
      await bullQueue(app, 'charges').add('charge', { ...data, signature }, { ...opts, timestamp: dayAgo });
      await eventually(
        () => reasons(app),
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
      (letters) => expect(letters.length).toBeGreaterThanOrEqual(1),
    );
    expect(await settled(heir, 'charge:1')).toMatchObject({ status: 'dead' });
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
      const plain = { tenant: 'acme', key: 'charge:1' };
      poisons.push(
        ['a NUL in the id', async () => [plain, { jobId: 'order\0 17' }]],
        ['an id of kilobytes', async () => [plain, { jobId: randomBytes(4000).toString('base64') }]],
      );
    }

    it.each(poisons)('is buried, and keeps nobody waiting: %s', async (_title, poison) => {
      const [data, opts] = await poison();
      const { app } = await start({ identify: identifyPlain });
      const queue = bullQueue(app, 'charges');
      await queue.pause();
      const poisoned = await queue.add('charge', data, opts);
      await queue.addBulk(
        Array.from({ length: 20 }, (_, index) => ({
          name: 'charge',
          data: { tenant: 'globex', key: `charge:${index}` },
        })),
      );
      await queue.resume();
      const letters = await eventually(
        () => lettersOf(app),
        (found) => expect(found).toHaveLength(1),
      );
      expect(letters).toMatchObject([{ reason: 'payload_invalid', queue: 'charges' }]);
      await eventually(
        () => queue.getJobState(poisoned.id as string),
        (state) => expect(state).toBe('failed'),
      );
      for (let index = 0; index < 20; index += 1)
        expect(await settled(app, `charge:${index}`, 'globex')).toMatchObject({
          status: 'completed',
          attempts: 1,
        });
    });

    it('is buried also where nothing but Postgres knows it, and what was asked for together with it runs', async () => {
      const { app, runs } = await start({ identify: identifyPlain });
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
      const letters = await eventually(
        () => lettersOf(app),
        (found) => expect(found).toHaveLength(1),
      );
      expect(letters).toMatchObject([
        { reason: 'payload_invalid', payload: { tenant: 'acme', key: 'charge:poison' } },
      ]);
      await eventually(
        () => queue.getJobCounts('failed', 'completed', 'delayed'),
        (counts) => expect(counts).toEqual({ failed: 1, completed: 3, delayed: 0 }),
      );
      expect(runs.map(({ operationKey }) => operationKey).toSorted()).toEqual([
        'charge:1',
        'charge:2',
        'charge:3',
      ]);
    });

    it('is refused at the producer', async () => {
      const { app } = await apps.fresh(backend, { queues: ['charges'] });
      const queue = idempotentQueue(app, 'charges');
      const options = { operationKey: 'charge:1', tenantId: 'acme', deadline: new Date(TOO_EARLY) };
      await expect(queue.enqueue('charge', {}, options)).rejects.toThrow(UsageError);
      await expect(queue.enqueue('charge', {}, { ...options, durability: 'queue' })).rejects.toThrow(
        UsageError,
      );
      expect(() => queue.flowJob('charge', {}, options)).toThrow(UsageError);
    });
  });

  describe('a map of payload classes', () => {
    class ChargeDto {
      @IsNumber()
      amount!: number;
    }

    it('is closed: a job of another name is buried', async () => {
      const { app, runs } = await start({ payload: { charge: ChargeDto } });
      await enqueue(app, 'charges', 'refund', { amount: 'all of it' }, 'refund:1');
      await enqueue(app, 'charges', 'constructor', {}, 'constructor:1');
      await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1');
      await settled(app, 'charge:1');
      expect(await settled(app, 'refund:1')).toMatchObject({ status: 'dead' });
      expect(await settled(app, 'constructor:1')).toMatchObject({ status: 'dead' });
      expect(await reasons(app)).toEqual(['payload_invalid', 'payload_invalid']);
      expect(runs.map(({ operationKey }) => operationKey)).toEqual(['charge:1']);
    });

    it('is opened by unlistedPayloads', async () => {
      const { app, runs } = await start({
        payload: { charge: ChargeDto },
        unlistedPayloads: 'accept',
      } as object);
      await enqueue(app, 'charges', 'ping', {}, 'ping:1');
      await enqueue(app, 'charges', 'charge', { amount: 'all of it' }, 'charge:1');
      expect(await settled(app, 'ping:1')).toMatchObject({ status: 'completed' });
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead' });
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
          const runs: Run[] = [];
          const processor = processorOf('charges', { effect: 'keyed' }, (delivered, operation) => {
            const { tenantId, operationKey } = operation;
            runs.push({ tenantId, operationKey, data: delivered.data });
          });
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
      const letters = await lettersOf(app);
      expect(letters).toMatchObject([{ reason: 'expired', tenant_id: null, payload: null }]);
      expect(JSON.stringify(letters)).not.toMatch(/acme|charge:1"/);
      const [failed] = await bullQueue(app, 'charges').getFailed();
      expect(JSON.stringify([failed?.data, failed?.failedReason])).not.toMatch(/acme|amount/);
    });
  });
});
