import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, idempotentQueue, lettersOf, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

interface OldJob {
  readonly shop: string;
  readonly orderId: string;
}

describe.each(BACKENDS)('producers that add plain jobs, on %s', (backend) => {
  const apps = useApps();
  const processor = processorOf(
    'charges',
    {
      effect: 'keyed',
      identify: (job) => {
        const { shop, orderId } = job.data as OldJob;
        return { tenantId: shop, operationKey: `${job.name}:${orderId}` };
      },
    },
    (job, operation) => ({ tenant: operation.tenantId, data: job.data as unknown }),
  );

  it('a job added with queue.add runs once under the tenant that identify names, with its data as it is', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const data: OldJob = { shop: 'globex', orderId: '17' };
    await bullQueue(app, 'charges').add('charge', data, {
      attempts: 3,
      backoff: { type: 'exponential', delay: 100 },
    });
    await bullQueue(app, 'charges').add('charge', data);
    expect(await settled(app, 'charge:17', 'globex')).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: { tenant: 'globex', data },
    });
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts('completed'),
      (counts) => expect(counts).toMatchObject({ completed: 2 }),
    );
  });

  it('jobs of old and new producers share a queue', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await bullQueue(app, 'charges').add('charge', { shop: 'acme', orderId: '1' });
    await idempotentQueue(app, 'charges').enqueue(
      'charge',
      { new: true },
      { operationKey: 'charge:2', tenantId: 'acme' },
    );
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    expect(await settled(app, 'charge:2')).toMatchObject({
      status: 'completed',
      result: { data: { new: true } },
    });
  });

  it('a job that identify throws for is buried with what it said', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await bullQueue(app, 'charges').add('charge', null);
    const [letter] = await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ reason: 'identity_missing' }]),
    );
    expect(letter?.error?.message).toContain('identify() could not name the operation');
  });
});
