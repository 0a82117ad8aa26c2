import type { INestApplicationContext } from '@nestjs/common';
import { DelayedError, type Job } from 'bullmq';
import { type CurrentOperation, type IdempotentQueue, PermanentError } from 'nestjs-idempotent-jobs';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const EFFECTS: Effect[] = ['natural', 'transactional', 'keyed', 'unrepeatable'];
const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

type Act = (job: Job, operation: CurrentOperation, app: INestApplicationContext) => unknown;

describe.each(BACKENDS)('a follow-up enqueued by a handler, on %s', (backend) => {
  const apps = useApps();

  /** Its handler enqueues `charge:<attempt>` and then does what the test says. */
  const start = async (effect: Effect, act: Act, timeoutMs = 5000) => {
    const late: { app?: INestApplicationContext; charges?: IdempotentQueue } = {};
    const orders = processorOf('orders', { effect, retry: QUICK, timeoutMs }, async (job, operation) => {
      operation.enqueue(
        late.charges as IdempotentQueue,
        'charge',
        {},
        {
          operationKey: `charge:${operation.attempt}`,
        },
      );
      return act(job, operation, late.app as INestApplicationContext);
    });
    const { app } = await apps.fresh(backend, { queues: ['orders', 'charges'], providers: [orders] });
    late.app = app;
    late.charges = idempotentQueue(app, 'charges');
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    return { app, events };
  };
  const chargesOf = async (app: INestApplicationContext): Promise<string[]> => {
    const rows = await dataSourceOf(app).query<{ operation_key: string }[]>(
      `SELECT operation_key FROM job_outcomes WHERE queue = 'charges'`,
    );
    return rows.map((row) => row.operation_key);
  };

  describe.each(EFFECTS)('with effect %s', (effect) => {
    it('exists when the outcome is recorded', async () => {
      const { app } = await start(effect, () => 'done');
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
      expect(await chargesOf(app)).toEqual(['charge:1']);
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'pending' });
    });

    it('does not exist when the handler throws after it', async () => {
      const { app } = await start(effect, () => {
        throw new PermanentError('card declined');
      });
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'dead' });
      expect(await chargesOf(app)).toEqual([]);
    });

    it('does not exist for an attempt that outlived its timeout and then returned', async () => {
      const gate = new Gate();
      const { app, events } = await start(
        effect,
        async () => {
          await gate.pass();
          return 'too late';
        },
        200,
      );
      await eventually(
        () => outcomeOf(app, 'order:1'),
        (outcome) => expect(outcome?.failures ?? 0).toBeGreaterThan(0),
      );
      gate.open();
      await eventually(
        () => events.map(({ kind }) => kind),
        (kinds) => expect(kinds).toContain('late_result_discarded'),
      );
      expect(await chargesOf(app)).not.toContain('charge:1');
    });

    it('does not exist for an attempt that was given back; it does for the one that completed', async () => {
      let deliveries = 0;
      const { app } = await start(effect, async (job, operation) => {
        deliveries += 1;
        if (deliveries > 1) return 'done';
        operation.markNotApplied();
        await job.moveToDelayed(Date.now() + 50, job.token);
        throw new DelayedError();
      });
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
      expect(await chargesOf(app)).toHaveLength(1);
      expect(deliveries).toBe(2);
    });
  });

  it.each(['natural', 'keyed', 'unrepeatable'] as const)(
    'with effect %s does not exist for an attempt whose lease went to another worker',
    async (effect) => {
      const { app, events } = await start(effect, async (_job, _operation, current) => {
        await dataSourceOf(current).query(
          `UPDATE job_outcomes SET fencing_token = fencing_token + 1, run_id = 'rival',
             lease_expires_at = clock_timestamp() + interval '1 hour'
           WHERE operation_key = 'order:1'`,
        );
        return 'done';
      });
      await eventually(
        () => events.map(({ kind }) => kind),
        (kinds) => expect(kinds).toContain('fence_rejected'),
      );
      expect(await outcomeOf(app, 'order:1')).toMatchObject({ status: 'running' });
      expect(await chargesOf(app)).toEqual([]);
    },
  );

  it('with effect transactional does not exist for an attempt whose connection was lost before COMMIT', async () => {
    let isFirst = true;
    const { app } = await start('transactional', async (_job, operation, current) => {
      if (!isFirst) return 'done';
      isFirst = false;
      const [{ pid }] = await operation.transaction.query<[{ pid: number }]>(
        'SELECT pg_backend_pid() AS pid',
      );
      await dataSourceOf(current).query('SELECT pg_terminate_backend($1)', [pid]);
      expect(await chargesOf(current)).toEqual([]);
      return 'done';
    });
    expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
    expect(await chargesOf(app)).toHaveLength(1);
  });
});
