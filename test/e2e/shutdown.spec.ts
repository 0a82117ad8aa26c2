import type { INestApplicationContext } from '@nestjs/common';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, idempotentQueue, lettersOf } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { useProcesses, type TestProcess } from '../support/processes.js';
import { CREATE_WORK, LONG_LEASE_MS, type WorkerScript } from '../support/script.js';
import { singly } from '../support/start-app.js';

/*
 * Deployments, with real processes and signals: workers that are asked to go, replaced one after another, and a
 * dispatcher that dies at the worst moment. The judge is the table that handlers write to.
 */

/** Handlers that end only when they are told to, which is soon after SIGTERM. */
const ENDLESS = { act: 'work', concurrency: 50, workMs: 60_000, drainMs: 300 } as const;

describe.each(BACKENDS)('processes that come and go, on %s', (backend) => {
  const apps = useApps();
  const workers = useProcesses();

  const start = async (
    place: Place,
    script: Pick<WorkerScript, 'effect' | 'act'> & Partial<WorkerScript>,
  ): Promise<TestProcess> => {
    return workers.start({ leaseMs: LONG_LEASE_MS, place, ...script });
  };
  /** An application that enqueues and looks; the queue's workers are the child processes. */
  const begin = async (isDispatching = true): Promise<{ app: INestApplicationContext; place: Place }> => {
    const place = await makePlace(backend);
    const jobs = { dispatch: { enabled: isDispatching } };
    const app = await apps.beside(place, { queues: ['charges'], jobs });
    await dataSourceOf(app).query(CREATE_WORK);
    return { app, place };
  };
  const enqueue = (app: INestApplicationContext, from: number, count: number): Promise<unknown> =>
    idempotentQueue(app, 'charges').enqueueMany(
      Array.from({ length: count }, (_, index) => ({
        name: 'charge',
        payload: {},
        operationKey: `charge:${from + index}`,
        tenantId: 'acme',
      })),
    );
  const noted = async (app: INestApplicationContext, event: string, pid?: number): Promise<number> => {
    const [row] = await dataSourceOf(app).query<{ count: number }[]>(
      'SELECT count(*)::integer AS count FROM work WHERE event = $1 AND ($2::integer IS NULL OR pid = $2)',
      [event, pid ?? null],
    );
    return row?.count ?? 0;
  };
  /** An application that does what the processes before it have left. */
  const takeOver = (app: INestApplicationContext, place: Place, effect: Effect): Promise<unknown> => {
    const processor = processorOf('charges', { effect, leaseMs: LONG_LEASE_MS }, (_job, operation) =>
      dataSourceOf(app).query(
        `INSERT INTO work SELECT $1, $2, 0, event FROM unnest(ARRAY['started', 'done']) AS event`,
        [operation.operationKey, operation.attempt],
      ),
    );
    return apps.beside(place, { queues: ['charges'], providers: [processor] });
  };
  const startedBy = (app: INestApplicationContext, worker: TestProcess, count: number): Promise<unknown> =>
    eventually(
      () => noted(app, 'started', worker.pid),
      (started) => expect(started).toBeGreaterThanOrEqual(count),
    );
  /** Every operation has completed as its first attempt, and its work was done once. */
  const expectAllOnce = async (app: INestApplicationContext, count: number): Promise<void> => {
    await eventually(
      () =>
        dataSourceOf(app).query(
          'SELECT status, attempts, failures, count(*)::integer AS operations FROM job_outcomes GROUP BY 1, 2, 3',
        ),
      (rows) => expect(rows).toEqual([{ status: 'completed', attempts: 1, failures: 0, operations: count }]),
    );
    const twice = await dataSourceOf(app).query(
      `SELECT operation_key FROM work WHERE event = 'done' GROUP BY operation_key HAVING count(*) <> 1`,
    );
    expect(twice).toEqual([]);
    expect(await noted(app, 'done')).toBe(count);
    expect(await lettersOf(app)).toEqual([]);
  };

  it('SIGTERM with 50 handlers that finish in time: they do, and a heir does the rest', async () => {
    const { app, place } = await begin();
    const first = await start(place, {
      effect: 'unrepeatable',
      act: 'work until told',
      concurrency: 50,
      workMs: 300,
    });
    await enqueue(app, 0, 120);
    await startedBy(app, first, 50);
    expect(await noted(app, 'done')).toBe(0);
    first.signal('SIGTERM');
    expect(await first.exited).toBe('SIGTERM');
    expect(await noted(app, 'started')).toBe(50);
    expect(await noted(app, 'done')).toBe(50);

    await takeOver(app, place, 'unrepeatable');
    await expectAllOnce(app, 120);
  });

  it.each<Effect>(['keyed', 'transactional'])(
    '%s: SIGTERM with 50 handlers that are told to stop, and do: a heir does all of it as attempt 1',
    async (effect) => {
      const { app, place } = await begin();
      const first = await start(place, { ...ENDLESS, effect });
      await enqueue(app, 0, 70);
      // Handler transactions have half of the pool's ten connections to themselves.
      const atOnce = effect === 'transactional' ? 5 : 50;
      await startedBy(app, first, atOnce);
      first.signal('SIGTERM');
      expect(await first.exited).toBe('SIGTERM');
      expect(await noted(app, 'done')).toBe(0);

      await takeOver(app, place, effect);
      await expectAllOnce(app, 70);
    },
  );

  it('unrepeatable: SIGTERM with 50 handlers that are told to stop: each is in doubt, with its letter, and no other', async () => {
    const { app, place } = await begin();
    const first = await start(place, { ...ENDLESS, effect: 'unrepeatable' });
    await enqueue(app, 0, 70);
    await startedBy(app, first, 50);
    first.signal('SIGTERM');
    expect(await first.exited).toBe('SIGTERM');

    await takeOver(app, place, 'unrepeatable');
    await eventually(
      () =>
        dataSourceOf(app).query(
          'SELECT status, attempts, count(*)::integer AS operations FROM job_outcomes GROUP BY 1, 2 ORDER BY 1',
        ),
      (rows) =>
        expect(rows).toEqual([
          { status: 'completed', attempts: 1, operations: 20 },
          { status: 'in_doubt', attempts: 1, operations: 50 },
        ]),
    );
    expect((await lettersOf(app)).map((letter) => letter.reason)).toEqual(
      Array.from({ length: 50 }, () => 'in_doubt'),
    );
    expect(await noted(app, 'started')).toBe(70);
  });

  it('four workers replaced one after another under load: nothing is lost, nothing runs twice', async () => {
    const { app, place } = await begin();
    const script = { effect: 'unrepeatable', act: 'work', concurrency: 5, workMs: 200 } as const;
    const team = await Promise.all([1, 2, 3, 4].map(() => start(place, script)));
    let enqueued = 0;
    const shift = new AbortController();
    const load = (async () => {
      while (!shift.signal.aborted) {
        await enqueue(app, enqueued, 20);
        enqueued += 20;
        await eventually(
          () => noted(app, 'done'),
          (done) => expect(done).toBeGreaterThan(enqueued - 60),
        );
      }
    })();
    for (const leaver of team) {
      await startedBy(app, leaver, 3);
      leaver.signal('SIGTERM');
      const heir = await start(place, script);
      expect(await leaver.exited).toBe('SIGTERM');
      await startedBy(app, heir, 1);
    }
    shift.abort();
    await load;
    expect(enqueued).toBeGreaterThan(100);
    await expectAllOnce(app, enqueued);
    // Eight processes start here, and each needs a second of the machine's attention.
  }, 240_000);

  it('a dispatcher killed between put and mark: another puts the same jobs again, and each runs once', async () => {
    const { app, place } = await begin(false);
    await enqueue(app, 0, 30);
    const victim = workers.launch({
      leaseMs: LONG_LEASE_MS,
      place,
      effect: 'natural',
      act: 'die after put',
      bundle: 'never',
    });
    expect(await victim.exited).toBe('SIGKILL');
    const dispatches = (): Promise<unknown[]> =>
      dataSourceOf(app).query(
        'SELECT dispatches, count(*)::integer AS operations FROM job_outcomes GROUP BY 1',
      );
    const jobIds = async (): Promise<string[]> =>
      (await bullQueue(app, 'charges').getJobs(['waiting'])).map((job) => job.id as string).toSorted();
    expect(await dispatches()).toEqual([{ dispatches: 0, operations: 30 }]);
    const before = await jobIds();
    expect(before).toHaveLength(30);

    // The hold that the victim had on its rows is over.
    await dataSourceOf(app).query('UPDATE job_outcomes SET dispatch_due_at = clock_timestamp()');
    await apps.beside(place, { queues: [singly('charges')] });
    await eventually(dispatches, (rows) => expect(rows).toEqual([{ dispatches: 1, operations: 30 }]));
    expect(await jobIds()).toEqual(before);
    await takeOver(app, place, 'unrepeatable');
    await expectAllOnce(app, 30);
    expect(await noted(app, 'started')).toBe(30);
  });
});
