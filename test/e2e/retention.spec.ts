import { WorkerHost } from '@nestjs/bullmq';
import { type CanActivate, type INestApplicationContext, UseGuards } from '@nestjs/common';
import { IdempotentProcessor, OutcomeService, PermanentError, Reconciliation } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { ConfigurationError, TenantMismatchError, UsageError } from 'nestjs-idempotent-jobs/errors';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { FlowProducer } from 'bullmq';
import { beforeAll, describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { Gate, type Handler, identifyPlain, processorOf, Scripts } from '../support/processors.js';
import type { Place } from '../support/place.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { failStalled } from '../support/stalled.js';

const BY = { actor: 'ada', note: 'spring cleaning' };
const DAY_MS = 24 * 60 * 60 * 1000;
const QUICK = { attempts: 2, backoff: { baseMs: 10, capMs: 20 } };

async function withFlowProducer(
  place: Place,
  use: (producer: FlowProducer) => Promise<unknown>,
): Promise<void> {
  const producer = new FlowProducer({ connection: place.connection, prefix: place.prefix });
  try {
    await use(producer);
  } finally {
    await producer.close();
  }
}

/** How many jobs of each state several queues have together; states without any are left out. */
function sumOf(counts: readonly Record<string, number>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [state, count] of counts.flatMap(Object.entries))
    if (count > 0) sums[state] = (sums[state] ?? 0) + count;
  return sums;
}

/** Lets time pass for what the ledger has of a tenant. */
async function age(app: INestApplicationContext, days: number, tenantId = 'acme'): Promise<void> {
  const by = `interval '${days} days'`;
  await dataSourceOf(app).query(
    `UPDATE job_outcomes
     SET created_at = created_at - ${by}, settled_at = settled_at - ${by}, expires_at = expires_at - ${by}
     WHERE tenant_id = $1`,
    [tenantId],
  );
  await dataSourceOf(app).query(
    `UPDATE dead_letters SET created_at = created_at - ${by}, resolved_at = resolved_at - ${by}
     WHERE tenant_id = $1`,
    [tenantId],
  );
}

async function rowsOf(app: INestApplicationContext, table: string, tenantId?: string): Promise<number> {
  const [row] = await dataSourceOf(app).query<{ rows: number }[]>(
    `SELECT count(*)::integer AS rows FROM ${table} WHERE $1::text IS NULL OR tenant_id = $1`,
    [tenantId],
  );
  return (row as { rows: number }).rows;
}

/** Completes charges, but lets those with an amount of 0 die. */
const charging =
  (runs: string[]): Handler =>
  (job, operation) => {
    runs.push(operation.operationKey);
    if ((job.data as { amount?: number }).amount === 0) throw new PermanentError('nothing to charge');
    return 'charged';
  };

describe.each(BACKENDS)('retention, on %s', (backend) => {
  const apps = useApps();
  const KEYED = { effect: 'keyed', identify: identifyPlain } as const;
  const processor = (runs: string[] = []) => processorOf('charges', KEYED, charging(runs));

  const scripts = new Scripts();
  // A case ages what its own tenant has: what the others have left is too young to be pruned.
  const shared = useOneApp(backend, {
    queues: ['charges', 'transfers', 'retried', 'reports', 'summaries'],
    providers: [
      processorOf('charges', KEYED, scripts.handler),
      processorOf('transfers', { effect: 'transactional', identify: identifyPlain }, scripts.handler),
      processorOf('retried', { effect: 'keyed', retry: QUICK }, scripts.handler),
      processorOf('reports', KEYED, scripts.handler),
      processorOf('summaries', KEYED, scripts.handler),
    ],
  });

  it('completed operations go after 7 days, with their attempts; open letters and their operations stay', async () => {
    const app = shared();
    const tenantId = scripts.tenantWith(charging([]));
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId);
    await enqueue(app, 'charges', 'charge', { amount: 0 }, 'charge:2', tenantId);
    await settled(app, 'charge:1', tenantId);
    await settled(app, 'charge:2', tenantId);
    const retention = app.get(RetentionService);

    await age(app, 6.9, tenantId);
    expect(await retention.prune()).toEqual({ operations: 0, letters: 0 });
    await age(app, 0.2, tenantId);
    expect(await retention.prune({ dryRun: true })).toEqual({ operations: 1, letters: 0 });
    expect(await retention.prune()).toEqual({ operations: 1, letters: 0 });
    expect(await outcomeOf(app, 'charge:1', tenantId)).toBeUndefined();
    await age(app, 365, tenantId);
    expect(await retention.prune()).toEqual({ operations: 0, letters: 0 });
    expect(await outcomeOf(app, 'charge:2', tenantId)).toMatchObject({ status: 'dead' });

    await app.get(DeadLetterService).discard({ tenantId, operationKey: 'charge:2' }, BY);
    await age(app, 29.9, tenantId);
    expect(await retention.prune()).toEqual({ operations: 0, letters: 0 });
    await age(app, 0.2, tenantId);
    expect(await retention.prune()).toEqual({ operations: 1, letters: 1 });
    expect(await rowsOf(app, 'job_attempts', tenantId)).toBe(0);
  });

  it('a completed operation stays while a conflicting request of its key has an open letter', async () => {
    const app = shared();
    const tenantId = scripts.tenantWith(charging([]));
    await deliver(app, 'charges', 'charge:1', { amount: 5 }, tenantId);
    await settled(app, 'charge:1', tenantId);
    await deliver(app, 'charges', 'charge:1', { amount: 6 }, tenantId);
    await eventually(
      () => lettersOf(app, tenantId),
      (letters) => expect(letters).toMatchObject([{ reason: 'idempotency_conflict' }]),
    );
    await age(app, 100, tenantId);
    expect(await app.get(RetentionService).prune()).toEqual({ operations: 0, letters: 0 });
    const letter = { tenantId, operationKey: 'charge:1' };
    await app.get(DeadLetterService).discard(letter, BY);
    expect(await outcomeOf(app, 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
    expect(await app.get(RetentionService).prune()).toEqual({ operations: 1, letters: 0 });
  });

  it('prunes around a row that somebody is at, and waits for nobody', async () => {
    const app = shared();
    const tenantId = scripts.tenantWith(charging([]));
    for (const key of ['charge:1', 'charge:2']) {
      await enqueue(app, 'charges', 'charge', { amount: 5 }, key, tenantId);
      await settled(app, key, tenantId);
    }
    await age(app, 8, tenantId);
    await dataSourceOf(app).transaction(async (manager) => {
      await manager.query(
        `SELECT FROM job_outcomes WHERE tenant_id = $1 AND operation_key = 'charge:1' FOR UPDATE`,
        [tenantId],
      );
      expect(await app.get(RetentionService).prune()).toEqual({ operations: 1, letters: 0 });
    });
    expect(await app.get(RetentionService).prune()).toEqual({ operations: 1, letters: 0 });
  });

  it('is pruned by itself, and by the settings of its queue', async () => {
    const { app } = await apps.fresh(backend, {
      queues: [
        'charges',
        {
          name: 'mails',
          retention: { completedMs: DAY_MS, redriveWindowMs: DAY_MS, dedupeWindowMs: DAY_MS },
        },
      ],
      providers: [processor(), processorOf('mails', { effect: 'natural' }, () => 'sent')],
      jobs: { recovery: { pruneMs: 100 } },
    });
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1');
    await enqueue(app, 'mails', 'mail', {}, 'mail:1');
    await settled(app, 'charge:1');
    await settled(app, 'mail:1');
    await age(app, 1.1);
    await eventually(
      () => outcomeOf(app, 'mail:1'),
      (outcome) => expect(outcome).toBeUndefined(),
    );
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('prunes thousands in batches, while the same rows are claimed and enqueued', async () => {
    const runs: string[] = [];
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor(runs)] });
    await dataSourceOf(app).query(`
      INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, result, settled_at, expires_at)
      SELECT 'acme', 'old:' || n, 'job', 'charges', 'charge', 'op-' || n, repeat('0', 64), 'completed', '1', now() - interval '9 days', now() - interval '2 days'
      FROM generate_series(1, 3000) n`);
    const requests = Array.from({ length: 200 }, (_, index) => ({
      name: 'charge',
      payload: { amount: 5 },
      operationKey: `charge:${index}`,
      tenantId: 'acme',
    }));
    const [pruned] = await Promise.all([
      app.get(RetentionService).prune(),
      idempotentQueue(app, 'charges').enqueueMany(requests),
    ]);
    expect(pruned.operations).toBe(3000);
    await Promise.all(requests.map(({ operationKey }) => settled(app, operationKey)));
    expect(runs).toHaveLength(200);
  });

  it('a key that returns after its operation was pruned is a new operation; before, it is answered', async () => {
    const app = shared();
    const runs: string[] = [];
    const tenantId = scripts.tenantWith(charging(runs));
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId);
    await settled(app, 'charge:1', tenantId);
    expect(await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId)).toMatchObject({
      duplicate: true,
      result: 'charged',
    });
    await age(app, 8, tenantId);
    await app.get(RetentionService).prune();
    // BullMQ still holds the finished job of the first.
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId);
    expect(await settled(app, 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
    expect(runs).toHaveLength(2);
  });

  /** As if the queue's operations had been pruned up to so many days ago, or none of them ever. */
  async function forget(app: INestApplicationContext, days: number | 'none'): Promise<void> {
    const until = days === 'none' ? 'NULL' : `clock_timestamp() - interval '${days} days'`;
    await dataSourceOf(app).query(`UPDATE job_queues SET forgotten_until = ${until} WHERE queue = 'charges'`);
  }

  /** A job that has waited for so many days. */
  async function oldJob(
    app: INestApplicationContext,
    days: number,
    key = 'charge:1',
    tenant = 'acme',
  ): Promise<void> {
    const timestamp = Date.now() - days * DAY_MS;
    await bullQueue(app, 'charges').add('charge', { tenant, key }, { timestamp });
  }

  it('a job that is not younger than what was forgotten is buried instead of run, and runs once a person vouches for it', async () => {
    const app = shared();
    const runs: string[] = [];
    const tenantId = scripts.tenantWith(charging(runs));
    await forget(app, 7);
    await oldJob(app, 8, 'charge:1', tenantId);
    await eventually(
      () => lettersOf(app, tenantId),
      (letters) => expect(letters).toMatchObject([{ reason: 'expired', operation_key: 'charge:1' }]),
    );
    expect(runs).toEqual([]);
    const letter = { tenantId, operationKey: 'charge:1' };
    const service = app.get(DeadLetterService);
    await expect(service.redrive(letter, BY)).rejects.toThrow(/nobody knows whether/);
    await expect(service.redriveMany({ queue: 'charges', tenantId }, BY)).rejects.toThrow(/expired/);
    await service.resolve(letter, Reconciliation.notApplied(), BY);
    expect(await settled(app, 'charge:1', tenantId)).toMatchObject({ status: 'completed', attempts: 1 });
    expect(runs).toEqual(['charge:1']);
  });

  it('an old job runs where nothing of its age was forgotten, whatever the retention is now', async () => {
    const app = shared();
    await forget(app, 'none');
    const runs: string[] = [];
    const tenantId = scripts.tenantWith(charging(runs));
    await oldJob(app, 40, 'charge:1', tenantId);
    expect(await settled(app, 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
    await forget(app, 30);
    await oldJob(app, 29, 'charge:2', tenantId);
    expect(await settled(app, 'charge:2', tenantId)).toMatchObject({ status: 'completed' });
    expect(runs).toEqual(['charge:1', 'charge:2']);
  });

  it('a short retention leaves young jobs alone, however little it has just forgotten', async () => {
    const runs: string[] = [];
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor(runs)],
      jobs: { retention: { completedMs: 60_000, redriveWindowMs: 60_000, dedupeWindowMs: 60_000 } },
    });
    await deliver(app, 'charges', 'charge:1');
    await settled(app, 'charge:1');
    await age(app, 61 / 86_400);
    expect(await app.get(RetentionService).prune()).toMatchObject({ operations: 1 });
    await deliver(app, 'charges', 'charge:2');
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed' });
    expect(runs).toEqual(['charge:1', 'charge:2']);
  });

  it('a longer retention does not bring back what was forgotten under a shorter one: the job of it is buried', async () => {
    const runs: string[] = [];
    const brief = { completedMs: DAY_MS, redriveWindowMs: DAY_MS, dedupeWindowMs: DAY_MS };
    const first = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor(runs)],
      jobs: { retention: brief },
    });
    await enqueue(first.app, 'charges', 'charge', { amount: 5 }, 'charge:1');
    await settled(first.app, 'charge:1');
    // Ended five days ago, forgotten four days ago.
    await age(first.app, 5);
    expect(await first.app.get(RetentionService).prune()).toMatchObject({ operations: 1 });
    await apps.close(first.app);
    const app = await apps.beside(first.place, {
      queues: ['charges'],
      providers: [processor(runs)],
      jobs: { retention: { completedMs: 30 * DAY_MS } },
    });
    await oldJob(app, 5.01);
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ reason: 'expired' }]),
    );
    expect(runs).toHaveLength(1);
  });

  it('an old job whose operation is pruned while a guard looks at it does not run a second time', async () => {
    const runs: string[] = [];
    const gate = new Gate();
    let isHeld = false;
    class HoldingGuard implements CanActivate {
      async canActivate(): Promise<boolean> {
        if (isHeld) await gate.pass();
        return true;
      }
    }
    @UseGuards(HoldingGuard)
    @IdempotentProcessor('charges', { effect: 'keyed', identify: identifyPlain })
    class GuardedProcessor extends WorkerHost {
      async process(): Promise<void> {
        runs.push('charge:1');
      }
    }
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [GuardedProcessor] });
    await deliver(app, 'charges', 'charge:1');
    await settled(app, 'charge:1');
    await age(app, 8);
    isHeld = true;
    await bullQueue(app, 'charges').add(
      'charge',
      { tenant: 'acme', key: 'charge:1' },
      { timestamp: Date.now() - 8.01 * DAY_MS },
    );
    await gate.arrival;
    expect(await app.get(RetentionService).prune()).toEqual({ operations: 1, letters: 0 });
    gate.open();
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ reason: 'expired' }]),
    );
    expect(runs).toHaveLength(1);
  });

  it('a job that BullMQ failed by itself long ago is buried as expired, and no redrive of many runs it', async () => {
    const runs: string[] = [];
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    await forget(app, 7);
    await oldJob(app, 40);
    await failStalled(place, bullQueue(app, 'charges'));
    const heir = await apps.beside(place, {
      queues: ['charges'],
      providers: [processor(runs)],
      jobs: { recovery: { sweepMs: 100 } },
    });
    await forget(heir, 7);
    await eventually(
      () => lettersOf(heir),
      (letters) => expect(letters).toMatchObject([{ reason: 'expired' }]),
    );
    expect(runs).toEqual([]);
  });

  it('a key that is used again while an expired letter of it is open has its own death, and its own way back', async () => {
    const app = shared();
    const tenantId = scripts.tenantWith(charging([]));
    await forget(app, 7);
    await oldJob(app, 8, 'charge:1', tenantId);
    await eventually(
      () => lettersOf(app, tenantId),
      (letters) => expect(letters).toHaveLength(1),
    );
    await enqueue(app, 'charges', 'charge', { amount: 0 }, 'charge:1', tenantId);
    expect(await settled(app, 'charge:1', tenantId)).toMatchObject({ status: 'dead' });
    expect((await lettersOf(app, tenantId)).map((letter) => letter.reason)).toEqual([
      'expired',
      'permanent_error',
    ]);
    const [expired] = await lettersOf(app, tenantId);
    const service = app.get(DeadLetterService);
    await expect(service.resolve(expired?.id as string, Reconciliation.notApplied(), BY)).rejects.toThrow(
      /another request/,
    );
    const found = await service.get({ tenantId, operationKey: 'charge:1' });
    expect(found).toMatchObject({ reason: 'permanent_error' });
  });

  it('an old job whose operation is still known runs, however long it has waited', async () => {
    const runs: string[] = [];
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1');
    const { jobId } = (await outcomeOf(app, 'charge:1')) as { jobId: string };
    const waiting = await eventually(
      () => bullQueue(app, 'charges').getJob(jobId),
      (job) => expect(job).toBeDefined(),
    );
    await waiting?.remove();
    const data = waiting?.data as object;
    await bullQueue(app, 'charges').add('charge', data, { jobId, timestamp: Date.now() - 30 * DAY_MS });
    await dataSourceOf(app).query(`UPDATE job_queues SET forgotten_until = clock_timestamp()`);
    await apps.beside(place, { queues: ['charges'], providers: [processor(runs)] });
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    expect(runs).toEqual(['charge:1']);
  });

  describe('at boot', () => {
    let place: Place;
    beforeAll(async () => {
      place = await makePlace(backend);
    });

    it.each([
      ['a redrive window', { retention: { redriveWindowMs: 8 * DAY_MS } }, {}, /redriveWindowMs is 192 h/],
      ['a dedupe window', { retention: { dedupeWindowMs: 8 * DAY_MS } }, {}, /dedupeWindowMs is 192 h/],
      [
        'the retention of failed jobs',
        {},
        { defaultJobOptions: { removeOnFail: { age: 8 * 24 * 60 * 60 } } },
        /removeOnFail\.age is 192 h/,
      ],
      [
        'the retention of completed jobs',
        {},
        { defaultJobOptions: { removeOnComplete: { age: 8 * 24 * 60 * 60 } } },
        /removeOnComplete\.age is 192 h/,
      ],
    ])('is refused if it is shorter than %s', async (_title, jobs, bullmq, message) => {
      const start = apps.beside(place, { queues: [{ name: 'charges', bullmq }], jobs });
      const error = await start.catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ConfigurationError);
      expect((error as Error).message).toMatch(message);
    });
  });

  describe('of a tenant that is erased', () => {
    it('nothing is left: operations, letters, attempts, jobs; of others, all', async () => {
      const runs: string[] = [];
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor(runs)] });
      for (const tenantId of ['acme', 'globex']) {
        const queue = idempotentQueue(app, 'charges');
        await queue.enqueue('charge', { amount: 5 }, { operationKey: 'charge:1', tenantId });
        await queue.enqueue('charge', { amount: 0 }, { operationKey: 'charge:2', tenantId });
        await queue.enqueue('charge', { amount: 5 }, { operationKey: 'charge:3', tenantId, delayMs: DAY_MS });
        await settled(app, 'charge:1', tenantId);
        await settled(app, 'charge:2', tenantId);
      }
      await deliver(app, 'charges', 'charge:4', {}, 'acme');
      await settled(app, 'charge:4');
      const deadLetters = app.get(DeadLetterService);
      const { redriveId } = await deadLetters.redriveMany({ queue: 'charges', tenantId: 'acme' }, BY);
      await eventually(
        () => deadLetters.getRedrive(redriveId as string),
        ({ status }) => expect(status).toBe('completed'),
      );
      await settled(app, 'charge:2');
      await eventually(
        () => bullQueue(app, 'charges').getDelayedCount(),
        (delayed) => expect(delayed).toBe(2),
      );
      await eventually(
        () => bullQueue(app, 'charges-dlq').getWaitingCount(),
        (letters) => expect(letters).toBe(3),
      );

      const retention = app.get(RetentionService);
      const found = await retention.erase({ tenantId: 'acme', ...BY, dryRun: true });
      expect(found).toMatchObject({ operations: 4, letters: 2, attempts: 2 });
      expect(await rowsOf(app, 'job_outcomes')).toBe(7);
      const erased = await retention.erase({ tenantId: 'acme', ...BY });
      expect(erased).toMatchObject({ operations: 4, letters: 2, attempts: 2 });
      // Four that finished, one delayed, two messages on the dead-letter queue.
      expect(erased.jobs).toBe(7);

      for (const table of ['job_outcomes', 'dead_letters', 'job_attempts']) {
        expect(await dataSourceOf(app).query(`SELECT DISTINCT tenant_id FROM ${table}`)).toEqual([
          { tenant_id: 'globex' },
        ]);
      }
      const jobs = await bullQueue(app, 'charges').getJobs(['delayed', 'completed', 'failed', 'waiting']);
      const tenants = jobs.map(
        (job) => (job.data as { operation?: { tenantId: string } }).operation?.tenantId,
      );
      expect([...new Set(tenants)]).toEqual(['globex']);
      const traces = await Promise.all(
        ['job_actions', 'dead_letter_redrives'].map((table) =>
          dataSourceOf(app).query(
            `SELECT t::text FROM ${table} t WHERE t::text LIKE '%acme%' OR t::text LIKE '%charge:2%'`,
          ),
        ),
      );
      expect(traces.flat()).toMatchObject([{ t: expect.stringContaining('erase') }]);
      expect(
        await dataSourceOf(app).query('SELECT action, actor, note FROM job_actions ORDER BY id'),
      ).toEqual([
        { action: 'redrive_many', actor: 'ada', note: '(erased)' },
        { action: 'redrive', actor: 'ada', note: '(erased)' },
        { action: 'redrive_completed', actor: 'ada', note: '(erased)' },
        { action: 'erase', ...BY },
      ]);
      expect(await retention.erase({ tenantId: 'acme', ...BY })).toEqual({
        operations: 0,
        letters: 0,
        attempts: 0,
        jobs: 0,
      });
    });

    it('nothing is touched while a worker holds a job of it that has claimed nothing yet', async () => {
      const app = shared();
      const gate = new Gate();
      const tenantId = scripts.tenantWith(async (_job, operation) => {
        await operation.transaction.query('SELECT 1');
        await gate.pass();
      });
      await enqueue(app, 'transfers', 'charge', {}, 'charge:1', tenantId);
      await gate.arrival;
      const retention = app.get(RetentionService);
      await expect(retention.erase({ tenantId, ...BY })).rejects.toThrow(/Nothing was erased/);
      gate.open();
      expect(await settled(app, 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
      await eventually(
        () => bullQueue(app, 'transfers').getActiveCount(),
        (active) => expect(active).toBe(0),
      );
      expect(await retention.erase({ tenantId, ...BY })).toMatchObject({ operations: 1, jobs: 1 });
    });

    it("is not another tenant's to erase", async () => {
      const app = shared();
      await asTenant(app, 'globex', () =>
        expect(app.get(RetentionService).erase({ tenantId: 'acme', ...BY })).rejects.toThrow(
          TenantMismatchError,
        ),
      );
    });

    it('nothing is touched while its operations run', async () => {
      const app = shared();
      const gate = new Gate();
      const tenantId = scripts.tenantWith(() => gate.pass());
      await enqueue(app, 'charges', 'charge', {}, 'charge:1', tenantId);
      await gate.arrival;
      await expect(app.get(RetentionService).erase({ tenantId, ...BY })).rejects.toThrow(UsageError);
      gate.open();
      expect(await settled(app, 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
    });

    describe('what others have made stays theirs', () => {
      const midnight = { pattern: '0 0 * * *' };
      const reportOf = (tenant: string) => ({ name: 'report', data: { tenant, key: 'report' } });

      it('a scheduler whose id is the beginning of the id of one that goes', async () => {
        const bull = bullQueue(shared(), 'reports');
        const tenantId = scripts.tenantWith(() => undefined);
        await bull.upsertJobScheduler('report', midnight, reportOf('globex'));
        await bull.upsertJobScheduler('report:acme', midnight, reportOf(tenantId));
        const erased = await shared()
          .get(RetentionService)
          .erase({ tenantId, ...BY });
        expect(erased).toMatchObject({ jobs: 1 });
        expect(await bull.getJobSchedulers()).toMatchObject([{ key: 'report' }]);
        expect(await bull.getDelayed()).toMatchObject([{ data: { tenant: 'globex' } }]);
      });

      it('a scheduler that a job that goes names in its id', async () => {
        const bull = bullQueue(shared(), 'summaries');
        const tenantId = scripts.tenantWith(() => undefined);
        await bull.upsertJobScheduler('report', midnight, reportOf('globex'));
        const { name, data } = reportOf(tenantId);
        await bull.add(name, data, { jobId: 'repeat:report:1', delay: DAY_MS });
        const erased = await shared()
          .get(RetentionService)
          .erase({ tenantId, ...BY });
        expect(erased).toMatchObject({ jobs: 1 });
        expect(await bull.getJobSchedulers()).toMatchObject([{ key: 'report' }]);
        expect(await bull.getDelayed()).toMatchObject([{ data: { tenant: 'globex' } }]);
      });

      it.each([
        ['a child of a parent that goes', 'acme', 'globex', 'charge:1'],
        ['a parent of a child that goes', 'globex', 'acme', 'order:1'],
      ])('%s, which runs', async (_title, parent, child, left) => {
        const { app, place } = await apps.fresh(backend, { queues: ['charges', 'orders'] });
        const node = (queue: string, operationKey: string, tenantId: string) =>
          idempotentQueue(app, queue).flowJob(queue, {}, { operationKey, tenantId });
        await withFlowProducer(place, (producer) =>
          producer.add({
            ...node('orders', 'order:1', parent),
            children: [node('charges', 'charge:1', child)],
          }),
        );
        expect(await app.get(RetentionService).erase({ tenantId: 'acme', ...BY })).toMatchObject({ jobs: 1 });
        const worker = await apps.beside(place, {
          queues: ['charges', 'orders'],
          providers: ['charges', 'orders'].map((queue) =>
            processorOf(queue, { effect: 'keyed' }, () => 'done'),
          ),
        });
        expect(await settled(worker, left, 'globex')).toMatchObject({ status: 'completed' });
        await eventually(
          async () => Promise.all(['charges', 'orders'].map((queue) => bullQueue(app, queue).getJobCounts())),
          (counts) => expect(sumOf(counts)).toEqual({ completed: 1 }),
        );
      });
    });

    it('needs an actor, a reason and a tenant', async () => {
      const retention = shared().get(RetentionService);
      await expect(retention.erase({ tenantId: '', ...BY })).rejects.toThrow(/tenant id is empty/);
      await expect(retention.erase({ tenantId: 'acme', actor: 'ada', note: '' })).rejects.toThrow(/note/);
    });
  });

  it('the history of an operation tells retries, doubts, letters, redrives and workers in order', async () => {
    const app = shared();
    let calls = 0;
    const tenantId = scripts.tenantWith(() => {
      calls += 1;
      if (calls <= 2) throw Object.assign(new Error(`refused ${calls}`), { code: 'ECONNREFUSED' });
      return 'charged';
    });
    await enqueue(app, 'retried', 'charge', {}, 'charge:1', tenantId);
    await settled(app, 'charge:1', tenantId);
    await app.get(DeadLetterService).redrive({ tenantId, operationKey: 'charge:1' }, BY);
    await settled(app, 'charge:1', tenantId);
    const history = await app.get(OutcomeService).history({ tenantId, operationKey: 'charge:1' });
    const retried = {
      kind: 'attempt_failed',
      failure: 'transient',
      reason: 'ECONNREFUSED',
      runId: expect.any(String),
      startedAt: expect.any(Date),
    };
    expect(history).toMatchObject([
      { kind: 'accepted', queue: 'retried', jobName: 'charge' },
      { ...retried, attempt: 1, error: { message: 'refused 1' }, delayMs: expect.any(Number) },
      { ...retried, attempt: 2, error: { message: 'refused 2' }, delayMs: undefined },
      { kind: 'dead_lettered', reason: 'retries_exhausted' },
      { kind: 'action', action: 'redrive', ...BY },
      { kind: 'completed', attempt: 1 },
    ]);
    const times = history.map(({ at }) => at.getTime());
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(await app.get(OutcomeService).history({ tenantId: 'globex', operationKey: 'charge:1' })).toEqual(
      [],
    );
  });
});
