import { type INestApplicationContext, Injectable } from '@nestjs/common';
import { WorkerHost } from '@nestjs/bullmq';
import { IdempotentProcessor, TenantContext } from 'nestjs-idempotent-jobs';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { asTenant, bullQueue, enqueue, outcomeOf, settled } from '../support/ledger.js';
import { SHORT_CLOCKS } from '../support/processors.js';
import { BACKENDS, makePlace } from '../support/scenario.js';
import { singly } from '../support/start-app.js';

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

  it('share a database without meeting, each in a schema and a queue namespace of its own', async () => {
    const place = await makePlace(backend);
    const start = async (name: string): Promise<INestApplicationContext> => {
      // Redis keeps queues apart by prefix, Postgres by schema.
      const own =
        backend === 'redis'
          ? { prefix: `${place.prefix}-${name}` }
          : { connection: { ...place.connection, schema: `bullmq_${name}`, migrate: true } };
      const app = await apps.beside(
        { ...place, ...own },
        { queues: [singly('charges')], providers: [Name, SharedProcessor], jobs: { schema: name } },
      );
      app.get(Name).value = name;
      return app;
    };
    const [first, second] = [await start('first'), await start('second')];
    await Promise.all(
      [first, second].flatMap((app) =>
        Array.from({ length: 50 }, (_, index) =>
          enqueue(app, 'charges', 'charge', { index, of: app.get(Name).value }, `charge:${index}`),
        ),
      ),
    );
    for (let index = 0; index < 50; index += 1) {
      const outcomes = [await settled(first, `charge:${index}`), await settled(second, `charge:${index}`)];
      expect(outcomes).toMatchObject([
        { status: 'completed', result: 'first', attempts: 1 },
        { status: 'completed', result: 'second', attempts: 1 },
      ]);
    }
    await first.get(RetentionService).erase({ tenantId: 'acme', actor: 'ada', note: 'contract ended' });
    expect(await outcomeOf(first, 'charge:1')).toBeUndefined();
    expect(await outcomeOf(second, 'charge:1')).toMatchObject({ result: 'second' });
    expect(await bullQueue(second, 'charges').getJobCountByTypes('completed')).toBe(50);
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
