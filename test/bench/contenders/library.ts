import 'reflect-metadata';
import { BullModule, WorkerHost } from '@nestjs/bullmq';
import { type INestApplicationContext, Module, type Provider } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';
import {
  currentOperation,
  getIdempotentQueueToken,
  IdempotentJobsModule,
  IdempotentProcessor,
  type IdempotentQueue,
} from 'nestjs-idempotent-jobs';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { type JobEvent, JobEvents, type MetricsAdapter } from 'nestjs-idempotent-jobs/observe';
import { otelMetrics } from 'nestjs-idempotent-jobs/otel';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';
import { makeEffects, writeEffect } from './effects.js';
import { untilNoRow } from './until-no-row.js';
import {
  chunks,
  type Contender,
  Countdown,
  handle,
  FORGET_COMPLETED,
  type OpenContender,
  payloadOf,
  QUEUE,
  type Site,
} from '../contender.js';

/** This library, with `effect: 'keyed'`: claim, run, complete. */
export const idempotent = idempotentWith('idempotent', () => []);

/** The same, put on the queue by the ledger, in BullMQ jobs that carry up to 50 operations each. */
export const bundled: Contender = {
  name: 'bundled',
  open: (site, concurrency) => openIdempotent(site, concurrency, { bundle: { max: 50 } }),
};

const OPTIMISTIC = { effect: 'natural', optimistic: true } as const;

/** With `effect: 'natural'`, and first attempts that are not claimed. */
export const optimistic: Contender = {
  name: 'optimistic',
  open: (site, concurrency) => openIdempotent(site, concurrency, OPTIMISTIC),
};

/** The same, in bundles. */
export const bundledOptimistic: Contender = {
  name: 'bundledOptimistic',
  open: (site, concurrency) => openIdempotent(site, concurrency, { ...OPTIMISTIC, bundle: { max: 50 } }),
};

/** The library as it is by default, counted by prom-client. */
export const counted = idempotentWith('prometheus', () => [prometheusMetrics({ registry: new Registry() })]);

/** The same, measured by OpenTelemetry's SDK. */
export const measured = idempotentWith('otel', () => {
  const provider = new MeterProvider({ readers: [new IdleReader()] });
  return [otelMetrics({ meter: provider.getMeter('bench') })];
});

/** The SDK aggregates for whoever may come and read. */
class IdleReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

/** The same, with a dependency of the processor: circuit, bulkhead and retry budget around each attempt. */
export const dependent: Contender = {
  name: 'dependency',
  open: (site, concurrency) => openIdempotent(site, concurrency, { guarded: 'processor' }),
};

/** The same, with the dependency around a call inside the handler. */
export const guardedCall: Contender = {
  name: 'guardedCall',
  open: (site, concurrency) => openIdempotent(site, concurrency, { guarded: 'call' }),
};

/** Deliveries of what has completed before, which are answered from the ledger. */
export const replayed: Contender = {
  name: 'replayed',
  async open(site, concurrency) {
    const first = await openIdempotent(site, concurrency);
    const second = await openIdempotent(site, concurrency);
    return {
      async fill(jobs) {
        await first.fill(jobs);
        const all = new Countdown(jobs, 0, () => undefined);
        await first.drain(all);
        await first.close();
        await second.fill(jobs);
      },
      drain: (countdown) => second.drain(countdown),
      close: () => second.close(),
    };
  },
};

/** `effect: 'transactional'`, whose handler writes a row. */
export const transactional: Contender = {
  name: 'transactional',
  async open(site, concurrency) {
    await makeEffects(site);
    return openIdempotent(site, concurrency, { effect: 'transactional' });
  },
};

/** `enqueueMany()`, to the ledger or straight to the queue. Only enqueueing is measured, and nothing is worked off. */
export const enqueued = enqueuing('enqueueMany', 'ledger');
export const enqueuedInQueue = enqueuing('enqueueManyQueue', 'queue');

function enqueuing(name: string, durability: 'ledger' | 'queue'): Contender {
  return {
    name,
    async open(site) {
      // Without a dispatcher: what it puts on the queue costs what `addBulk()` costs.
      const app = await startApp(site, [], { dispatches: false });
      const queue = app.get<IdempotentQueue>(getIdempotentQueueToken(QUEUE));
      let jobs = 0;
      return {
        fill: async (count) => void (jobs = count),
        async drain(countdown) {
          for (const chunk of chunks(jobs)) {
            await queue.enqueueMany(chunk.map(requestOf), { durability });
            for (const _job of chunk) countdown.count();
          }
        },
        close: () => app.close(),
      };
    },
  };
}

const requestOf = (number: number) => ({
  name: 'charge',
  payload: payloadOf(number),
  operationKey: `charge:${number}`,
  tenantId: 'acme',
});

function idempotentWith(name: string, metrics: () => readonly MetricsAdapter[]): Contender {
  return { name, open: (site, concurrency) => openIdempotent(site, concurrency, { metrics: metrics() }) };
}

interface Variant {
  readonly metrics?: readonly MetricsAdapter[];
  readonly guarded?: 'processor' | 'call';
  readonly bundle?: { readonly max: number };
  readonly optimistic?: boolean;
  readonly effect?: 'keyed' | 'natural' | 'transactional';
}

async function openIdempotent(
  site: Site,
  concurrency: number,
  { metrics = [], guarded, bundle, optimistic = false, effect = 'keyed' }: Variant = {},
): Promise<OpenContender> {
  let onHandled = (): void => undefined;
  const dependency = guarded === 'processor' ? { dependency: GATEWAY } : {};

  @IdempotentProcessor(QUEUE, { effect, optimistic, ...dependency }, { concurrency, autorun: false })
  class BenchProcessor extends WorkerHost {
    constructor(private readonly guard: DependencyGuard) {
      super();
    }

    process(): Promise<unknown> {
      onHandled();
      if (effect === 'transactional') return writeEffect(currentOperation().transaction);
      return guarded === 'call' ? this.guard.call(GATEWAY, handle) : handle();
    }
  }

  const app = await startApp(site, [BenchProcessor], { metrics, bundle });
  const queue = app.get<IdempotentQueue>(getIdempotentQueueToken(QUEUE));
  const { worker } = app.get(BenchProcessor);
  return {
    async fill(jobs) {
      for (const chunk of chunks(jobs)) {
        await queue.enqueueMany(chunk.map(requestOf), {
          durability: bundle === undefined ? 'queue' : 'ledger',
        });
      }
      if (bundle !== undefined) await untilNoRow(site.databaseUrl, 'job_outcomes WHERE dispatches = 0');
    },
    async drain(countdown) {
      // A bundle is one job of BullMQ's, so its operations are counted by their handlers.
      if (bundle === undefined) worker.on('completed', () => countdown.count());
      else onHandled = () => countdown.count();
      worker.run().catch((error: unknown) => countdown.fail(error));
      await countdown.over;
      if (bundle !== undefined)
        await untilNoRow(site.databaseUrl, `job_outcomes WHERE status <> 'completed'`);
    },
    tellUs(jobs) {
      const events = app.get(JobEvents);
      const before = process.cpuUsage();
      for (let job = 0; job < jobs; job += 1) for (const event of SUCCESS) events.emit(event);
      const { user, system } = process.cpuUsage(before);
      return (user + system) / jobs;
    },
    ...(guarded !== undefined && {
      async guardUs(calls: number) {
        const guard = app.get(DependencyGuard);
        const bare = await cpuUsOf(calls, handle);
        return (await cpuUsOf(calls, () => guard.call(GATEWAY, handle))) - bare;
      },
    }),
    close: () => app.close(),
  };
}

/** Makes the ledger's tables, for contenders that have no application. */
export async function makeLedger(site: Site): Promise<void> {
  const app = await startApp(site, [], {});
  await app.close();
}

function startApp(
  site: Site,
  providers: Provider[],
  { metrics = [], bundle, dispatches = true }: Pick<Variant, 'metrics' | 'bundle'> & { dispatches?: boolean },
): Promise<INestApplicationContext> {
  @Module({
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url: site.databaseUrl }),
      BullModule.forRoot({
        connection: site.connection,
        prefix: site.prefix,
        defaultJobOptions: FORGET_COMPLETED,
      }),
      IdempotentJobsModule.forRoot({
        migrations: 'run',
        logs: 'none',
        metrics,
        dispatch: { enabled: dispatches },
        dependencies: { [GATEWAY]: { maxConcurrent: 10_000 } },
      }),
      IdempotentJobsModule.registerQueue({ name: QUEUE, ...(bundle && { bundle }) }),
    ],
    providers,
  })
  class BenchModule {}

  return NestFactory.createApplicationContext(BenchModule, { logger: ['error'] });
}

async function cpuUsOf(times: number, call: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  for (let time = 0; time < times; time += 1) await call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}

const GATEWAY = 'gateway';

const JOB = {
  queue: QUEUE,
  jobName: 'charge',
  jobId: 'op-1',
  tenantId: 'acme',
  operationKey: 'charge:1',
  attempt: 1,
};
const SUCCESS: readonly JobEvent[] = [
  { kind: 'enqueued', ...JOB, isDuplicate: false },
  { kind: 'started', ...JOB, runId: 'w', waitMs: 12.5 },
  { kind: 'completed', ...JOB, durationMs: 3.25, endToEndMs: 15.75 },
];
