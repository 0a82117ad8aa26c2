import 'reflect-metadata';
import { BullModule, WorkerHost } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';
import { Queue, type QueueOptions, Worker } from 'bullmq';
import {
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
import { Column, DataSource, Entity, PrimaryColumn } from 'typeorm';

/** Where a contender runs: a database and a queue namespace of its own. */
export interface Site {
  readonly databaseUrl: string;
  readonly connection: QueueOptions['connection'];
  readonly prefix: string;
}

/** A way of working through a queue. Jobs are added first and then worked off, so that only working is measured. */
export interface Contender {
  readonly name:
    'bullmq' | 'findThenSave' | 'idempotent' | 'prometheus' | 'otel' | 'dependency' | 'guardedCall';
  open(site: Site, concurrency: number): Promise<Lane>;
}

/** One opened contender. */
export interface Lane {
  fill(jobs: number): Promise<void>;
  /** Starts the worker; the promise resolves when the last job is done. */
  drain(jobs: number): Promise<void>;
  /** How much CPU time it takes to tell of a job that succeeds, in µs; where there is anybody to tell. */
  tellUs?(jobs: number): number;
  /** How much CPU time a guarded call takes more than the call, in µs; where there is a guard. */
  guardUs?(calls: number): Promise<number>;
  close(): Promise<void>;
}

const QUEUE = 'bench';
const CHUNK = 1000;
const KEEP_NOTHING = { removeOnComplete: true };
/** The handler: nothing but a turn of the event loop, so that all that is measured is what goes on around it. */
const handle = (): Promise<{ ok: true }> => Promise.resolve({ ok: true });
const payloadOf = (number: number): object => ({
  orderId: `order-${number}`,
  amountCents: 1999,
  currency: 'EUR',
});

/** BullMQ alone. */
export const bullmq: Contender = {
  name: 'bullmq',
  open: (site, concurrency) => openPlain(site, concurrency, handle),
};

@Entity('processed_jobs')
class ProcessedJob {
  @PrimaryColumn({ type: 'text' })
  id!: string;

  @Column({ type: 'json', nullable: true })
  result!: unknown;
}

/** The usual "safer version": find by job id, run, save. */
export const findThenSave: Contender = {
  name: 'findThenSave',
  async open(site, concurrency) {
    const dataSource = await new DataSource({
      type: 'postgres',
      url: site.databaseUrl,
      entities: [ProcessedJob],
      synchronize: true,
    }).initialize();
    const processed = dataSource.getRepository(ProcessedJob);
    const lane = await openPlain(site, concurrency, async (jobId) => {
      const found = await processed.findOneBy({ id: jobId });
      if (found !== null) return found.result;
      const result = await handle();
      await processed.save({ id: jobId, result });
      return result;
    });
    return {
      ...lane,
      async close() {
        await lane.close();
        await dataSource.destroy();
      },
    };
  },
};

/** This library, with `effect: 'keyed'`: claim, run, complete. */
export const idempotent = idempotentWith('idempotent', () => []);

/** The same, counted by prom-client. */
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
  open: (site, concurrency) => openIdempotent(site, concurrency, [], 'processor'),
};

/** The same, with the dependency around a call inside the handler. */
export const guardedCall: Contender = {
  name: 'guardedCall',
  open: (site, concurrency) => openIdempotent(site, concurrency, [], 'call'),
};

function idempotentWith(name: Contender['name'], metrics: () => readonly MetricsAdapter[]): Contender {
  return { name, open: (site, concurrency) => openIdempotent(site, concurrency, metrics()) };
}

async function openIdempotent(
  site: Site,
  concurrency: number,
  metrics: readonly MetricsAdapter[],
  guarded?: 'processor' | 'call',
): Promise<Lane> {
  const counter = new Countdown();
  const dependency = guarded === 'processor' ? { dependency: GATEWAY } : {};

  @IdempotentProcessor(QUEUE, { effect: 'keyed', ...dependency }, { concurrency, autorun: false })
  class BenchProcessor extends WorkerHost {
    constructor(private readonly guard: DependencyGuard) {
      super();
    }

    process(): Promise<unknown> {
      return guarded === 'call' ? this.guard.call(GATEWAY, handle) : handle();
    }
  }

  @Module({
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url: site.databaseUrl }),
      BullModule.forRoot({
        connection: site.connection,
        prefix: site.prefix,
        defaultJobOptions: KEEP_NOTHING,
      }),
      IdempotentJobsModule.forRoot({
        migrations: 'run',
        logs: 'none',
        metrics,
        dependencies: { [GATEWAY]: { maxConcurrent: 10_000 } },
      }),
      IdempotentJobsModule.registerQueue(QUEUE),
    ],
    providers: [BenchProcessor],
  })
  class BenchModule {}

  const app = await NestFactory.createApplicationContext(BenchModule, { logger: ['error'] });
  const queue = app.get<IdempotentQueue>(getIdempotentQueueToken(QUEUE));
  const { worker } = app.get(BenchProcessor);
  worker.on('completed', () => counter.count());
  return {
    async fill(jobs) {
      for (let start = 0; start < jobs; start += CHUNK) {
        const requests = Array.from({ length: Math.min(CHUNK, jobs - start) }, (_, index) => ({
          name: 'charge',
          payload: payloadOf(start + index),
          operationKey: `charge:${start + index}`,
          tenantId: 'acme',
        }));
        await queue.enqueueMany(requests, { durability: 'queue' });
      }
    },
    drain(jobs) {
      const done = counter.from(jobs);
      worker.run().catch((error: unknown) => counter.fail(error));
      return done;
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

async function openPlain(
  site: Site,
  concurrency: number,
  process: (jobId: string) => Promise<unknown>,
): Promise<Lane> {
  const { connection, prefix } = site;
  const queue = new Queue(QUEUE, { connection, prefix, defaultJobOptions: KEEP_NOTHING });
  const counter = new Countdown();
  const worker = new Worker(QUEUE, (job) => process(job.id as string), {
    connection,
    prefix,
    concurrency,
    autorun: false,
  });
  worker.on('completed', () => counter.count());
  await queue.waitUntilReady();
  return {
    async fill(jobs) {
      for (let start = 0; start < jobs; start += CHUNK) {
        const size = Math.min(CHUNK, jobs - start);
        await queue.addBulk(
          Array.from({ length: size }, (_, index) => ({
            name: 'charge',
            data: payloadOf(start + index),
            opts: { jobId: `charge-${start + index}` },
          })),
        );
      }
    },
    drain(jobs) {
      const done = counter.from(jobs);
      worker.run().catch((error: unknown) => counter.fail(error));
      return done;
    },
    async close() {
      await worker.close();
      await queue.close();
    },
  };
}

/** Resolves when as many jobs have completed as were announced. */
class Countdown {
  #left = 0;
  #settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  from(jobs: number): Promise<void> {
    this.#left = jobs;
    return new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
  }

  count(): void {
    this.#left -= 1;
    if (this.#left === 0) this.#settle?.resolve();
  }

  fail(error: unknown): void {
    this.#settle?.reject(error);
  }
}
