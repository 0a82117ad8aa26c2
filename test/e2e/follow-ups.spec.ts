import { DelayedError } from 'bullmq';
import { PermanentError } from 'nestjs-idempotent-jobs';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { beforeAll, describe, expect, it } from 'vitest';
import { useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import { Gate, type Handler, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const EFFECTS: Effect[] = ['natural', 'transactional', 'keyed', 'unrepeatable'];
const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };
/** How long an attempt may take. */
const TIMEOUTS_MS = { patient: 60_000, hasty: 200 };
type Pace = keyof typeof TIMEOUTS_MS;
const PACES: Pace[] = ['patient', 'hasty'];
const ORDERS = EFFECTS.flatMap((effect) =>
  PACES.map((pace) => ({ effect, pace, queue: `${pace}-${effect}` })),
);

describe.each(BACKENDS)('a follow-up enqueued by a handler, on %s', (backend) => {
  const scripts = new Scripts();
  const app = useOneApp(backend, {
    queues: ['charges', ...ORDERS.map(({ queue }) => queue)],
    providers: ORDERS.map(({ effect, pace, queue }) =>
      processorOf(queue, { effect, retry: QUICK, timeoutMs: TIMEOUTS_MS[pace] }, scripts.handler),
    ),
  });
  const events: JobEvent[] = [];
  beforeAll(
    () =>
      void app()
        .get(JobEvents)
        .subscribe((event) => events.push(event)),
  );
  const kindsOf = (tenant: string): string[] =>
    events.filter(({ tenantId }) => tenantId === tenant).map(({ kind }) => kind);

  /** Its handler enqueues `charge:<attempt>` and then does what the test says. Answers with its tenant. */
  const start = async (effect: Effect, act: Handler, pace: Pace = 'patient'): Promise<string> => {
    const tenant = scripts.tenantWith((job, operation, signal) => {
      const charges = idempotentQueue(app(), 'charges');
      operation.enqueue(charges, 'charge', {}, { operationKey: `charge:${operation.attempt}` });
      return act(job, operation, signal);
    });
    await enqueue(app(), `${pace}-${effect}`, 'order', {}, 'order:1', tenant);
    return tenant;
  };
  const chargesOf = async (tenant: string): Promise<string[]> => {
    const rows = await dataSourceOf(app()).query<{ operation_key: string }[]>(
      `SELECT operation_key FROM job_outcomes WHERE queue = 'charges' AND tenant_id = $1`,
      [tenant],
    );
    return rows.map((row) => row.operation_key);
  };

  describe.each(EFFECTS)('with effect %s', (effect) => {
    it('exists when the outcome is recorded', async () => {
      const tenant = await start(effect, () => 'done');
      expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed' });
      expect(await chargesOf(tenant)).toEqual(['charge:1']);
      expect(await outcomeOf(app(), 'charge:1', tenant)).toMatchObject({ status: 'pending' });
    });

    it('does not exist when the handler throws after it', async () => {
      const tenant = await start(effect, () => {
        throw new PermanentError('card declined');
      });
      expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'dead' });
      expect(await chargesOf(tenant)).toEqual([]);
    });

    it('does not exist for an attempt that outlived its timeout and then returned', async () => {
      const gate = new Gate();
      const tenant = await start(
        effect,
        async () => {
          await gate.pass();
          return 'too late';
        },
        'hasty',
      );
      await eventually(
        () => outcomeOf(app(), 'order:1', tenant),
        (outcome) => expect(outcome?.failures ?? 0).toBeGreaterThan(0),
      );
      gate.open();
      await eventually(
        () => kindsOf(tenant),
        (kinds) => expect(kinds).toContain('late_result_discarded'),
      );
      expect(await chargesOf(tenant)).not.toContain('charge:1');
    });

    it('does not exist for an attempt that was given back; it does for the one that completed', async () => {
      let deliveries = 0;
      const tenant = await start(effect, async (job, operation) => {
        deliveries += 1;
        if (deliveries > 1) return 'done';
        operation.markNotApplied();
        await job.moveToDelayed(Date.now() + 50, job.token);
        throw new DelayedError();
      });
      expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed' });
      expect(await chargesOf(tenant)).toHaveLength(1);
      expect(deliveries).toBe(2);
    });
  });

  it.each(['natural', 'keyed', 'unrepeatable'] as const)(
    'with effect %s does not exist for an attempt whose lease went to another worker',
    async (effect) => {
      const tenant = await start(effect, async (_job, { tenantId }) => {
        await dataSourceOf(app()).query(
          `UPDATE job_outcomes SET fencing_token = fencing_token + 1, run_id = 'rival',
             lease_expires_at = clock_timestamp() + interval '1 hour'
           WHERE operation_key = 'order:1' AND tenant_id = $1`,
          [tenantId],
        );
        return 'done';
      });
      await eventually(
        () => kindsOf(tenant),
        (kinds) => expect(kinds).toContain('fence_rejected'),
      );
      expect(await outcomeOf(app(), 'order:1', tenant)).toMatchObject({ status: 'running' });
      expect(await chargesOf(tenant)).toEqual([]);
    },
  );

  it('with effect transactional does not exist for an attempt whose connection was lost before COMMIT', async () => {
    let isFirst = true;
    const tenant = await start('transactional', async (_job, operation) => {
      if (!isFirst) return 'done';
      isFirst = false;
      const [{ pid }] = await operation.transaction.query<[{ pid: number }]>(
        'SELECT pg_backend_pid() AS pid',
      );
      await dataSourceOf(app()).query('SELECT pg_terminate_backend($1)', [pid]);
      expect(await chargesOf(operation.tenantId)).toEqual([]);
      return 'done';
    });
    expect(await settled(app(), 'order:1', tenant)).toMatchObject({ status: 'completed' });
    expect(await chargesOf(tenant)).toHaveLength(1);
  });
});
