import type { INestApplicationContext } from '@nestjs/common';
import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { RetryLaterError } from 'nestjs-idempotent-jobs';
import { DispatchService } from 'nestjs-idempotent-jobs/operate';
import { bullQueue, idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const jobs = { dispatch: { redispatchAfterMs: 200, pollMs: 50 } };

describe.each(BACKENDS)(
  'an operation that is put on its queue again after the queue lost it, on %s',
  (backend) => {
    const apps = useApps();
    const enqueue = (app: INestApplicationContext, key: string, schedule: object) =>
      idempotentQueue(app, 'charges').enqueue(
        'charge',
        {},
        { operationKey: key, tenantId: 'acme', ...schedule },
      );
    const jobOf = async (app: INestApplicationContext, jobId: string): Promise<Job | undefined> =>
      (await bullQueue(app, 'charges').getJob(jobId)) as Job | undefined;

    /** The dispatcher has put it there, and said so. */
    const isPut = async (app: INestApplicationContext, jobId: string): Promise<Job> => {
      await eventually(
        () => dataSourceOf(app).query('SELECT dispatches FROM job_outcomes WHERE job_id = $1', [jobId]),
        (rows) => expect(rows).not.toEqual([{ dispatches: 0 }]),
      );
      return (await jobOf(app, jobId)) as Job;
    };

    it('has the delay that remains, its priority and its deadline', async () => {
      const { app } = await apps.fresh(backend, { queues: ['charges'], jobs });
      const deadline = new Date('2100-01-01T00:00:00.000Z');
      const { jobId } = await enqueue(app, 'charge:1', { delayMs: 3_600_000, priority: 7, deadline });
      const first = await isPut(app, jobId);
      expect(first.delay).toBeGreaterThan(3_590_000);
      await bullQueue(app, 'charges').remove(jobId);
      // As an hour less ten minutes later, when the queue has been empty for a while.
      await dataSourceOf(app).query(
        `UPDATE job_outcomes SET available_at = available_at - interval '50 min', dispatch_due_at = clock_timestamp()`,
      );
      const again = (await eventually(
        () => jobOf(app, jobId),
        (job) => expect(job).toBeDefined(),
      )) as Job;
      expect(again.delay).toBeGreaterThan(590_000);
      expect(again.delay).toBeLessThanOrEqual(600_000);
      expect(again.priority).toBe(7);
      expect(again.data).toMatchObject({ operation: { deadlineAt: deadline.toISOString() } });
      expect(await bullQueue(app, 'charges').getJobState(jobId)).toBe('delayed');
    });

    it('does not run before its time, and then once', async () => {
      const processor = processorOf('charges', { effect: 'keyed' }, () => 'done');
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], jobs });
      const enqueuedAt = Date.now();
      const { jobId } = await enqueue(app, 'charge:1', { delayMs: 4000 });
      await isPut(app, jobId);
      await bullQueue(app, 'charges').remove(jobId);
      const outcome = await settled(app, 'charge:1');
      expect(outcome).toMatchObject({ status: 'completed', attempts: 1 });
      expect((outcome.startedAt as Date).getTime() - enqueuedAt).toBeGreaterThanOrEqual(3950);
    });

    it('does not run before its time, though somebody promotes its job in a dashboard', async () => {
      const processor = processorOf('charges', { effect: 'keyed' }, () => 'done');
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], jobs });
      const enqueuedAt = Date.now();
      const { jobId } = await enqueue(app, 'charge:1', { delayMs: 4000 });
      await (await isPut(app, jobId)).promote();
      const outcome = await settled(app, 'charge:1');
      expect(outcome).toMatchObject({ status: 'completed', attempts: 1 });
      expect((outcome.startedAt as Date).getTime() - enqueuedAt).toBeGreaterThanOrEqual(3950);
    });

    it('keeps the pause after its last attempt, as a service asked for', async () => {
      let calls = 0;
      const processor = processorOf('charges', { effect: 'keyed' }, () => {
        calls += 1;
        throw new RetryLaterError(60_000);
      });
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], jobs });
      const { jobId } = await enqueue(app, 'charge:1', {});
      await eventually(
        () => outcomeOf(app, 'charge:1'),
        (outcome) => expect(outcome).toMatchObject({ status: 'retrying' }),
      );
      await bullQueue(app, 'charges').obliterate({ force: true });
      await app.get(DispatchService).redispatchUnsettled();
      const again = (await eventually(
        () => jobOf(app, jobId),
        (job) => expect(job).toBeDefined(),
      )) as Job;
      expect(again.delay).toBeGreaterThan(50_000);
      await again.promote();
      // It is delivered, and put off.
      await eventually(
        () => bullQueue(app, 'charges').getJobState(jobId),
        (state) => expect(state).toBe('delayed'),
      );
      expect(calls).toBe(1);
    });

    it('goes before what is less urgent', async () => {
      const gate = new Gate();
      const order: string[] = [];
      const processor = processorOf(
        'charges',
        { effect: 'keyed' },
        async (_job, operation) => {
          if (operation.operationKey === 'charge:first') await gate.pass();
          order.push(operation.operationKey);
        },
        { concurrency: 1 },
      );
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], jobs });
      await enqueue(app, 'charge:first', {});
      await gate.arrival;
      const lost = await enqueue(app, 'charge:urgent', { priority: 1 });
      const kept = await enqueue(app, 'charge:patient', { priority: 9 });
      for (const { jobId } of [lost, kept]) await isPut(app, jobId);
      await bullQueue(app, 'charges').remove(lost.jobId);
      await eventually(
        () => jobOf(app, lost.jobId),
        (job) => expect(job).toMatchObject({ priority: 1 }),
      );
      gate.open();
      await settled(app, 'charge:patient');
      expect(order).toEqual(['charge:first', 'charge:urgent', 'charge:patient']);
    });

    it('is not run after its deadline', async () => {
      const processor = processorOf('charges', { effect: 'keyed' }, () => 'done');
      const { app, place } = await apps.fresh(backend, { queues: ['charges'], jobs });
      const { jobId } = await enqueue(app, 'charge:1', { deadline: new Date('2100-01-01T00:00:00Z') });
      await isPut(app, jobId);
      await bullQueue(app, 'charges').remove(jobId);
      await dataSourceOf(app).query(
        `UPDATE job_outcomes SET deadline_at = clock_timestamp() - interval '1 s', dispatch_due_at = clock_timestamp()`,
      );
      const worker = await apps.beside(place, { queues: ['charges'], providers: [processor], jobs });
      expect(await settled(worker, 'charge:1')).toMatchObject({ status: 'dead' });
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'dead' });
      expect(await lettersOf(app)).toMatchObject([{ reason: 'time_budget_exceeded' }]);
    });
  },
);
