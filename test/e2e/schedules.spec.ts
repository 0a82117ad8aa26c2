import type { Job } from 'bullmq';
import type { IdempotentQueue } from 'nestjs-idempotent-jobs';
import { InvalidIdentityError, UsageError } from 'nestjs-idempotent-jobs/errors';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { describe, expect, it, vi } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, bullQueue, idempotentQueue, lettersOf, outcomeOf } from '../support/ledger.js';
import { Gate, processorOf, SHORT_CLOCKS } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const SOON_MS = 300;
const FAR_MS = 3_600_000;
const DAY_MS = 24 * FAR_MS;
const ITERATION = /^report:\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/;

describe.each(BACKENDS)('schedules, on %s', (backend) => {
  const apps = useApps();
  const start = async () => {
    const runs: string[] = [];
    const processor = processorOf('reports', { effect: 'keyed' }, (job, operation) => {
      runs.push(`${operation.tenantId}/${operation.operationKey}`);
      return { of: job.data as unknown };
    });
    const { app } = await apps.fresh(backend, { queues: ['reports'], providers: [processor] });
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    const queue = idempotentQueue(app, 'reports');
    return { app, queue, bull: bullQueue(app, 'reports'), runs, events };
  };
  const keysOf = async (app: Parameters<typeof dataSourceOf>[0]): Promise<string[]> => {
    const rows = await dataSourceOf(app).query<{ operation_key: string }[]>(
      'SELECT operation_key FROM job_outcomes ORDER BY operation_key',
    );
    return rows.map((row) => row.operation_key);
  };
  const report = { operationKey: 'report', tenantId: 'acme' };

  it.each([{ every: SOON_MS }, { pattern: '* * * * * *' }])(
    'each iteration of %o is an operation of its own, whose key tells when it was due',
    async (repeat) => {
      const { app, queue, runs } = await start();
      const scheduledAt = Date.now();
      const { nextAt, schedulerId } = await queue.schedule(
        'report',
        { of: 'sales' },
        { ...report, ...repeat },
      );
      expect(schedulerId).toMatch(/^op-/);
      expect((nextAt as Date).getTime()).toBeGreaterThan(scheduledAt - 1100);
      expect((nextAt as Date).getTime()).toBeLessThan(Date.now() + 1100);
      await eventually(
        () => runs.length,
        (count) => expect(count).toBeGreaterThanOrEqual(3),
      );
      expect(await queue.unschedule(report)).toBe(true);
      expect(await queue.unschedule(report)).toBe(false);
      const keys = await keysOf(app);
      expect(runs).toEqual(expect.arrayContaining([`acme/report:${(nextAt as Date).toISOString()}`]));
      expect(new Set(runs).size).toBe(runs.length);
      for (const key of keys) expect(key).toMatch(ITERATION);
      expect(await outcomeOf(app, keys[0] as string)).toMatchObject({
        status: 'completed',
        attempts: 1,
        result: { of: { of: 'sales' } },
      });
      expect(await lettersOf(app)).toEqual([]);
    },
  );

  it('an iteration that is delivered twice runs once', async () => {
    const { app, queue, bull, runs, events } = await start();
    await queue.schedule('report', {}, { ...report, every: FAR_MS });
    const [job] = await eventually(
      () => bull.getCompleted(),
      (jobs) => expect(jobs).toHaveLength(1),
    );
    await bull.clean(0, 10, 'completed');
    await bull.add('report', job?.data, { jobId: job?.id as string });
    await eventually(
      () => events.map(({ kind }) => kind),
      (kinds) => expect(kinds).toContain('replayed'),
    );
    expect(runs).toHaveLength(1);
    expect(await keysOf(app)).toHaveLength(1);
  });

  it('scheduling again replaces payload and times, and five processes may do so at once', async () => {
    const { queue, bull } = await start();
    for (const repeat of [{ every: FAR_MS }, { pattern: '0 6 * * *', tz: 'Europe/Berlin' }]) {
      const schedules = await Promise.all(
        [1, 2, 3, 4, 5].map((version) =>
          queue.schedule('report', { version }, { ...report, ...repeat, priority: version }),
        ),
      );
      expect(new Set(schedules.map(({ schedulerId }) => schedulerId)).size).toBe(1);
    }
    const schedulers = await bull.getJobSchedulers();
    expect(schedulers).toMatchObject([{ pattern: '0 6 * * *', tz: 'Europe/Berlin' }]);
  });

  describe('an iteration that was due when its schedule is made again, or ended, runs', () => {
    /** A queue whose iterations wait, for the reason that a test is about; `go` lets them run. */
    const waiting = {
      'no worker is there': async () => {
        const { app, place, runs, processor } = await apart();
        return {
          app,
          runs,
          go: async () => void (await apps.beside(place, { queues: ['reports'], providers: [processor()] })),
        };
      },
      'its worker is busy': async () => {
        const { app, place, runs, processor } = await apart();
        const gate = new Gate();
        const busy = processor((job) => (job.name === 'long' ? gate.pass() : undefined));
        await apps.beside(place, { queues: ['reports'], providers: [busy] });
        await idempotentQueue(app, 'reports').enqueue('long', {}, { operationKey: 'long', tenantId: 'acme' });
        await gate.arrival;
        return { app, runs, go: async () => gate.open() };
      },
      'its queue is paused': async () => {
        const { app, place, runs, processor } = await apart();
        await apps.beside(place, { queues: ['reports'], providers: [processor()] });
        await bullQueue(app, 'reports').pause();
        return { app, runs, go: () => bullQueue(app, 'reports').resume() };
      },
    };
    const reasons = Object.keys(waiting) as (keyof typeof waiting)[];

    /** An application that only schedules, and the processor for those that work. */
    const apart = async () => {
      const runs: Record<string, unknown> = {};
      const processor = (act: (job: Job) => unknown = () => undefined) =>
        processorOf(
          'reports',
          { effect: 'keyed' },
          async (job, { operationKey }) => {
            await act(job);
            if (job.name === 'report') runs[operationKey] = job.data;
          },
          { ...SHORT_CLOCKS, concurrency: 1 },
        );
      const { app, place } = await apps.fresh(backend, { queues: ['reports'] });
      return { app, place, runs, processor };
    };
    const keyOf = (dueAt: Date | undefined): string => `report:${(dueAt as Date).toISOString()}`;
    /** Once a day, and the first time in a moment. */
    const soonDaily = () => {
      const at = new Date(Date.now() + 3000);
      return { pattern: `${at.getUTCSeconds()} ${at.getUTCMinutes()} ${at.getUTCHours()} * * *`, tz: 'UTC' };
    };
    const due = (at: Date | undefined): Promise<unknown> =>
      eventually(Date.now, (now) => expect(now).toBeGreaterThan((at as Date).getTime()));

    it.each(reasons)(
      'by the pattern of a day, while %s, with the payload it was made with',
      async (reason) => {
        const { app, runs, go } = await waiting[reason]();
        const queue = idempotentQueue(app, 'reports');
        const daily = { ...report, ...soonDaily() };
        const { nextAt } = await queue.schedule('report', { version: 1 }, daily);
        await due(nextAt);
        const again = await Promise.all(
          [2, 3, 4].map((version) => queue.schedule('report', { version }, daily)),
        );
        for (const { nextAt: next } of again)
          expect(next).toEqual(new Date((nextAt as Date).getTime() + DAY_MS));
        expect(runs).toEqual({});
        await go();
        await eventually(
          () => runs,
          (ran) => expect(ran).toEqual({ [keyOf(nextAt)]: { version: 1 } }),
        );
        expect(await bullQueue(app, 'reports').getJobSchedulersCount()).toBe(1);
        expect(await lettersOf(app)).toEqual([]);
      },
    );

    it.each(reasons)('by every so many ms, while %s', async (reason) => {
      const { app, runs, go } = await waiting[reason]();
      const queue = idempotentQueue(app, 'reports');
      const { nextAt } = await queue.schedule('report', { version: 1 }, { ...report, every: FAR_MS });
      await due(nextAt);
      const { nextAt: next } = await queue.schedule('report', { version: 2 }, { ...report, every: FAR_MS });
      expect((next as Date).getTime()).toBeGreaterThan(Date.now());
      await queue.schedule('report', { version: 3 }, { ...report, pattern: '0 6 * * *', priority: 2 });
      await go();
      await eventually(
        () => runs,
        (ran) => expect(ran).toEqual({ [keyOf(nextAt)]: { version: 1 } }),
      );
      expect(await lettersOf(app)).toEqual([]);
    });

    it.each(reasons)('when it is ended, while %s; no other iteration follows', async (reason) => {
      const { app, runs, go } = await waiting[reason]();
      const queue = idempotentQueue(app, 'reports');
      const { nextAt } = await queue.schedule('report', {}, { ...report, ...soonDaily(), priority: 7 });
      await due(nextAt);
      expect(await queue.unschedule(report)).toBe(true);
      expect(await queue.unschedule(report)).toBe(false);
      await go();
      await eventually(
        () => runs,
        (ran) => expect(Object.keys(ran)).toEqual([keyOf(nextAt)]),
      );
      const bull = bullQueue(app, 'reports');
      expect(await bull.getJobSchedulersCount()).toBe(0);
      expect(await bull.getDelayedCount()).toBe(0);
    });

    it('also when a process that makes the schedule has not seen that another one had made it', async () => {
      const { app, place, runs, processor } = await apart();
      const other = await apps.beside(place, { queues: ['reports'] });
      const daily = { ...report, ...soonDaily() };
      const bull = bullQueue(other, 'reports');
      vi.spyOn(bull, 'getJobScheduler').mockResolvedValueOnce(undefined as never);
      const upsert = bull.upsertJobScheduler.bind(bull);
      let nextAt: Date | undefined;
      vi.spyOn(bull, 'upsertJobScheduler').mockImplementationOnce(async (...given) => {
        ({ nextAt } = await idempotentQueue(app, 'reports').schedule('report', {}, daily));
        await due(nextAt);
        return upsert(...given);
      });
      await idempotentQueue(other, 'reports').schedule('report', {}, daily);
      await apps.beside(place, { queues: ['reports'], providers: [processor()] });
      await eventually(
        () => runs,
        (ran) => expect(ran).toEqual({ [keyOf(nextAt)]: {} }),
      );
      expect(await lettersOf(app)).toEqual([]);
    });

    it('also when it falls due while two processes make the schedule again and again', async () => {
      const { app, place, runs, processor } = await apart();
      const worker = await apps.beside(place, { queues: ['reports'], providers: [processor()] });
      const promised = new Set<string>();
      const kept = () => [...promised].filter((key) => key in runs);
      const hammer = async (queue: IdempotentQueue): Promise<void> => {
        while (kept().length < 4) {
          const { nextAt } = await queue.schedule('report', {}, { ...report, pattern: '* * * * * *' });
          promised.add(keyOf(nextAt));
        }
      };
      await Promise.all([app, worker].map((one) => hammer(idempotentQueue(one, 'reports'))));
      const last = Object.keys(runs).toSorted().at(-1) as string;
      const dueByThen = [...promised].filter((key) => key <= last);
      await eventually(
        () => Object.keys(runs),
        (ran) => expect(ran).toEqual(expect.arrayContaining(dueByThen)),
      );
    });

    it('after the last one of a schedule with an end, which is made again with a later end', async () => {
      const { app, runs, go } = await waiting['its queue is paused']();
      const queue = idempotentQueue(app, 'reports');
      const daily = { ...report, ...soonDaily() };
      const endDate = new Date(Date.now() + 4500);
      const { nextAt } = await queue.schedule('report', { version: 1 }, { ...daily, endDate });
      await due(endDate);
      const { nextAt: next } = await queue.schedule('report', { version: 2 }, daily);
      expect(next).toEqual(new Date((nextAt as Date).getTime() + DAY_MS));
      await go();
      await eventually(
        () => runs,
        (ran) => expect(ran).toEqual({ [keyOf(nextAt)]: { version: 1 } }),
      );
    });
  });

  it('a tenant cannot touch the schedule of another by using its key', async () => {
    const { queue, bull, app } = await start();
    await queue.schedule('report', {}, { ...report, pattern: '0 6 * * *' });
    await asTenant(app, 'globex', () =>
      queue.schedule('report', {}, { operationKey: 'report', pattern: '0 7 * * *' }),
    );
    expect(await bull.getJobSchedulersCount()).toBe(2);
    expect(await queue.unschedule({ operationKey: 'report', tenantId: 'globex' })).toBe(true);
    expect(await bull.getJobSchedulers()).toMatchObject([{ pattern: '0 6 * * *' }]);
  });

  it('an iteration whose data names another tenant, or whose id names no iteration, is not run', async () => {
    const { app, queue, bull, runs } = await start();
    const { schedulerId } = await queue.schedule('report', {}, { ...report, pattern: '0 6 * * *' });
    const [job] = await bull.getDelayed();
    const data = job?.data as { operation: object; payload: unknown };
    const stolen = { ...data, operation: { ...data.operation, tenantId: 'globex' } };
    await bull.add('report', stolen, { jobId: `repeat:${schedulerId}:1700000000000` });
    await bull.add('report', data, { jobId: `repeat:${schedulerId}:soon` });
    await bull.add('report', data, { jobId: schedulerId });
    await bull.add('report', data);
    const letters = await eventually(
      () => lettersOf(app),
      (found) => expect(found).toHaveLength(4),
    );
    expect(new Set(letters.map(({ reason }) => reason))).toEqual(new Set(['tenant_mismatch']));
    expect(runs).toEqual([]);
  });

  it('goes with its tenant when that is erased, and so do the iterations that BullMQ still holds', async () => {
    const { app, queue, bull, runs } = await start();
    await queue.schedule('report', {}, { ...report, every: SOON_MS });
    await queue.schedule('report', {}, { operationKey: 'report', tenantId: 'globex', pattern: '0 6 * * *' });
    await eventually(
      () => bull.getCompletedCount(),
      (count) => expect(count).toBeGreaterThanOrEqual(2),
    );
    await queue.schedule('report', {}, { ...report, pattern: '0 6 * * *' });
    // The last iteration of the old one may be under way.
    await eventually(
      () => bull.getJobCounts('active', 'delayed', 'waiting'),
      (counts) => expect(counts).toMatchObject({ active: 0, delayed: 2, waiting: 0 }),
    );
    const ran = runs.length;
    await app.get(RetentionService).erase({ tenantId: 'acme', actor: 'ada', note: 'contract ended' });
    expect(await bull.getJobSchedulers()).toHaveLength(1);
    expect(await bull.getJobCounts('completed', 'delayed', 'waiting')).toMatchObject({
      completed: 0,
      delayed: 1,
    });
    expect(runs).toHaveLength(ran);
  });

  it('a schedule that cannot be meant is refused, and nothing is scheduled', async () => {
    const { queue, bull } = await start();
    for (const repeat of [{}, { every: 1000, pattern: '* * * * *' }, { every: 0 }, { every: 1.5 }])
      await expect(queue.schedule('report', {}, { ...report, ...repeat })).rejects.toThrow(UsageError);
    const long = { operationKey: 'k'.repeat(376), tenantId: 'acme', every: FAR_MS };
    await expect(queue.schedule('report', {}, long)).rejects.toThrow(InvalidIdentityError);
    for (const [repeat, message] of [
      [{ pattern: 'at noon' }, /cannot read the pattern "at noon"/],
      [{ pattern: '0 6 * * *', tz: 'Mars/Olympus' }, /in time zone "Mars\/Olympus"/],
      [{ every: 1000, limit: 2 }, /takes no limit/],
    ] as const) {
      const refused = queue.schedule('report', {}, { ...report, ...repeat });
      await expect(refused).rejects.toThrow(UsageError);
      await expect(refused).rejects.toThrow(message);
    }
    expect(await bull.getJobSchedulersCount()).toBe(0);
  });
});
