import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, idempotentQueue, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const OPERATIONS = 100;

describe.each(BACKENDS)('a queue that loses its jobs, on %s', (backend) => {
  const apps = useApps();

  it('is filled again from the ledger, and every operation runs once', async () => {
    const runs = new Map<string, number>();
    const gate = new Gate();
    const processor = processorOf(
      'charges',
      { effect: 'unrepeatable' },
      async (_job, operation) => {
        runs.set(operation.operationKey, (runs.get(operation.operationKey) ?? 0) + 1);
        if (operation.operationKey === 'charge:0') await gate.pass();
      },
      { concurrency: 1 },
    );
    const jobs = { dispatch: { redispatchAfterMs: 500, pollMs: 100 } };
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], jobs });
    const requests = Array.from({ length: OPERATIONS }, (_, index) => ({
      name: 'charge',
      payload: {},
      operationKey: `charge:${index}`,
      tenantId: 'acme',
    }));
    await idempotentQueue(app, 'charges').enqueueMany(requests);
    await gate.arrival;
    await eventually(
      () => bullQueue(app, 'charges').getWaitingCount(),
      (waiting) => expect(waiting).toBe(OPERATIONS - 1),
    );

    await bullQueue(app, 'charges').drain();
    expect(await bullQueue(app, 'charges').getWaitingCount()).toBeLessThan(OPERATIONS - 1);
    gate.open();
    await Promise.all(requests.map(({ operationKey }) => settled(app, operationKey)));
    expect([...runs.values()].filter((count) => count !== 1)).toEqual([]);
    expect(runs.size).toBe(OPERATIONS);
    expect(
      await dataSourceOf(app).query(
        `SELECT status, count(*)::integer AS rows FROM job_outcomes GROUP BY status`,
      ),
    ).toEqual([{ status: 'completed', rows: OPERATIONS }]);
  });
});
