import { BullModule } from '@nestjs/bullmq';
import { type DynamicModule, type INestApplicationContext, Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  IdempotentJobsModule,
  type IdempotentJobsOptions,
  type IdempotentJobsOptionsFactory,
  type UnnamedQueueOptions,
  type IdempotentQueueOptionsFactory,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { bullQueue, enqueue, idempotentQueue, lettersOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, makePlace } from '../support/scenario.js';

/** What an application reads its configuration with. */
@Injectable()
class Settings implements IdempotentJobsOptionsFactory, IdempotentQueueOptionsFactory {
  createIdempotentJobsOptions(): IdempotentJobsOptions {
    return { migrations: 'run', logs: 'none', results: { maxBytes: 10 } };
  }

  async createIdempotentQueueOptions(queue: string): Promise<UnnamedQueueOptions> {
    return { bullmq: { defaultJobOptions: { priority: queue === 'charges' ? 7 : 3 } } };
  }
}

@Module({ providers: [Settings], exports: [Settings] })
class SettingsModule {}

const JOBS_SOURCES: readonly [string, () => DynamicModule][] = [
  [
    'a factory',
    () =>
      IdempotentJobsModule.forRootAsync({
        imports: [SettingsModule],
        inject: [Settings],
        useFactory: (settings: Settings) => settings.createIdempotentJobsOptions(),
      }),
  ],
  ['a class', () => IdempotentJobsModule.forRootAsync({ useClass: Settings })],
  [
    'a provider that exists',
    () => IdempotentJobsModule.forRootAsync({ imports: [SettingsModule], useExisting: Settings }),
  ],
];

const QUEUE_SOURCES: readonly [string, () => DynamicModule][] = [
  [
    'a factory',
    () =>
      IdempotentJobsModule.registerQueueAsync({
        name: 'charges',
        deadLetterQueue: 'dead-charges',
        imports: [SettingsModule],
        inject: [Settings],
        useFactory: (settings: Settings) => settings.createIdempotentQueueOptions('charges'),
      }),
  ],
  [
    'a class',
    () =>
      IdempotentJobsModule.registerQueueAsync(
        { name: 'charges', deadLetterQueue: 'dead-charges', useClass: Settings },
        { name: 'mails', useClass: Settings },
      ),
  ],
  [
    'a provider that exists',
    () =>
      IdempotentJobsModule.registerQueueAsync({
        name: 'charges',
        deadLetterQueue: 'dead-charges',
        imports: [SettingsModule],
        useExisting: Settings,
      }),
  ],
];

describe.each(BACKENDS)('options that come from elsewhere, on %s', (backend) => {
  const open: INestApplicationContext[] = [];
  afterEach(async () => {
    await Promise.all(open.splice(0).map((app) => app.close()));
  });

  async function start(place: Place, imports: readonly DynamicModule[]): Promise<INestApplicationContext> {
    @Module({
      imports: [
        TypeOrmModule.forRoot({ type: 'postgres', url: place.databaseUrl }),
        BullModule.forRoot({ connection: place.connection, prefix: place.prefix }),
        ...imports,
      ],
      providers: [processorOf('charges', { effect: 'natural' }, () => 'a result of more than ten bytes')],
    })
    class ShopModule {}
    const app = await NestFactory.createApplicationContext(ShopModule, {
      logger: false,
      abortOnError: false,
    });
    open.push(app);
    return app;
  }

  it.each(JOBS_SOURCES)('forRootAsync() takes them from %s', async (_what, jobs) => {
    const app = await start(await makePlace(backend), [
      jobs(),
      IdempotentJobsModule.registerQueue('charges'),
    ]);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', resultOmitted: 'too_large' });
  });

  it.each(QUEUE_SOURCES)('registerQueueAsync() takes them from %s', async (_what, queue) => {
    const app = await start(await makePlace(backend), [
      IdempotentJobsModule.forRoot({ migrations: 'run', logs: 'none' }),
      queue(),
    ]);
    expect(bullQueue(app, 'charges').defaultJobOptions).toMatchObject({ priority: 7 });
    expect(bullQueue(app, 'dead-charges').defaultJobOptions).toMatchObject({ priority: 7 });
    await idempotentQueue(app, 'charges').enqueue(
      'charge',
      {},
      { tenantId: 'acme', operationKey: 'charge:1' },
    );
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('a queue has the retention that its settings name', async () => {
    const registered = IdempotentJobsModule.registerQueueAsync({
      name: 'charges',
      useFactory: () => ({ retention: { completedMs: 1000 } }),
    });
    const starting = start(await makePlace(backend), [
      IdempotentJobsModule.forRoot({ migrations: 'run', logs: 'none' }),
      registered,
    ]);
    await expect(starting).rejects.toThrow(/completedMs/);
  });

  it.each([
    ['none', {}],
    ['two', { useFactory: () => ({}), useClass: Settings }],
  ])('%s of the three sources are refused where they are named', (_what, sources) => {
    expect(() => IdempotentJobsModule.forRootAsync(sources)).toThrow(
      /forRootAsync\(\): give one of useFactory, useClass and useExisting/,
    );
    expect(() => IdempotentJobsModule.registerQueueAsync({ name: 'charges', ...sources })).toThrow(
      /queue "charges": give one of useFactory, useClass and useExisting/,
    );
  });
});

describe.each(BACKENDS)('options of processors that a configuration gives, on %s', (backend) => {
  const apps = useApps();

  it('go before those of the decorator; what it leaves out stays the decorator’s', async () => {
    const attempts: number[] = [];
    const processor = processorOf(
      'charges',
      { effect: 'natural', timeoutMs: 30_000, retry: { attempts: 5, backoff: { baseMs: 1, capMs: 1 } } },
      async (_job, operation, signal) => {
        attempts.push(operation.attempt);
        // Never ends by itself: the timeout that is configured ends it.
        await new Promise((_resolve, reject) =>
          signal.addEventListener('abort', () => reject(new TransientError('stopped'))),
        );
      },
    );
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor],
      jobs: {
        processors: {
          charges: {
            timeoutMs: 50,
            leaseMs: undefined,
            retry: { attempts: 2, backoff: { baseMs: 1, capMs: 1 } },
          },
        },
      },
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 2 });
    expect(attempts).toEqual([1, 2]);
    expect(await lettersOf(app)).toMatchObject([{ reason: 'retries_exhausted' }]);
  });

  it('say how many handlers run at once', async () => {
    const gates = [new Gate(), new Gate(), new Gate()];
    let arrived = 0;
    const processor = processorOf(
      'charges',
      { effect: 'natural' },
      async () => {
        const gate = gates[arrived] as Gate;
        arrived += 1;
        await gate.pass();
      },
      { concurrency: 1 },
    );
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor],
      jobs: { processors: { charges: { concurrency: 3 } } },
    });
    for (const key of ['a', 'b', 'c']) await enqueue(app, 'charges', 'charge', {}, key);
    // With one at once, the second one would never arrive.
    await Promise.all(gates.map((gate) => gate.arrival));
    for (const gate of gates) gate.open();
    for (const key of ['a', 'b', 'c']) expect(await settled(app, key)).toMatchObject({ status: 'completed' });
  });

  it.each([
    [
      { charges: { effect: 'natural' } },
      /processors\.charges has effect, but a configuration can give timeoutMs/,
    ],
    [{ charges: { concurrency: 0 } }, /queue "charges": concurrency is 0, but must be a whole number/],
    [{ charges: { timeoutMs: -1 } }, /@IdempotentProcessor\("charges"\).*timeoutMs is -1/],
    [{ charges: null }, /processors\.charges is null, but must be an object/],
    [{ chargs: { concurrency: 3 } }, /names "chargs", but the queues that are registered here are "charges"/],
  ])('are refused at boot where they make no sense: %o', async (processors, message) => {
    const starting = apps.fresh(backend, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'natural' }, () => 'done')],
      jobs: { processors: processors as never },
    });
    await expect(starting).rejects.toThrow(message);
    await expect(starting).rejects.toMatchObject({ code: 'CONFIGURATION' });
  });
});
