import { Injectable } from '@nestjs/common';
import { WorkerHost } from '@nestjs/bullmq';
import { IdempotentProcessor, TenantContext } from 'nestjs-idempotent-jobs';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { asTenant, enqueue, outcomeOf, settled } from '../support/ledger.js';
import { SHORT_CLOCKS } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

@Injectable()
class Name {
  value = '';
}

@IdempotentProcessor('charges', { effect: 'natural' }, SHORT_CLOCKS)
class SharedProcessor extends WorkerHost {
  constructor(private readonly name: Name) {
    super();
  }

  process(): Promise<string> {
    return Promise.resolve(this.name.value);
  }
}

describe.each(BACKENDS)('two applications in one process, on %s', (backend) => {
  const apps = useApps();

  it('use the same processor class without meeting', async () => {
    const options = { queues: ['charges'], providers: [Name, SharedProcessor] };
    const { app: first } = await apps.fresh(backend, options);
    const { app: second } = await apps.fresh(backend, options);
    first.get(Name).value = 'first';
    second.get(Name).value = 'second';
    await enqueue(first, 'charges', 'charge', {}, 'charge:1');
    await enqueue(second, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(first, 'charge:1')).toMatchObject({ result: 'first' });
    expect(await settled(second, 'charge:1')).toMatchObject({ result: 'second' });
    await apps.close(first);
    await enqueue(second, 'charges', 'charge', {}, 'charge:2');
    expect(await settled(second, 'charge:2')).toMatchObject({ result: 'second' });
    expect(await outcomeOf(second, 'charge:1')).toMatchObject({ result: 'second' });
  });

  it("do not see each other's tenants", async () => {
    const { app: first } = await apps.fresh(backend, { queues: ['charges'] });
    const { app: second } = await apps.fresh(backend, { queues: ['charges'] });
    asTenant(first, 'acme', () => {
      expect(first.get(TenantContext).current).toBe('acme');
      expect(second.get(TenantContext).current).toBeUndefined();
    });
  });
});
