import {
  type BeforeApplicationShutdown,
  Injectable,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import { LetterLifecycle } from './dead-letter/letter.lifecycle.js';
import { LetterQueries } from './dead-letter/letter.queries.js';
import { ToldStore } from './dead-letter/told.store.js';
import type { CheckUp } from './doctor/check-up.js';
import type { Engine } from './engine.js';
import type { ResolvedOptions } from './idempotent-jobs.options.js';
import { type PausedQueue, pauseWhileOpen } from './intake/queue-pause.js';
import { ProcessorHost } from './intake/processor-host.js';
import { type RunningProcessor, WorkerLifecycle } from './intake/worker.lifecycle.js';
import { MetricsLifecycle } from './metrics/metrics.lifecycle.js';
import type { KnownNames } from './metrics/metrics.subscriber.js';
import type { JobEvents } from './observe/job-events.js';
import { logEvents } from './observe/log.subscriber.js';
import type { QueuePort } from './bullmq/queue-port.js';
import { tenantOfJob } from './intake/identify.js';
import { ConfigurationError } from './operation/errors.js';
import type { ErasableQueue } from './retention/erasure.js';
import { retentionProblems } from './retention/retention.options.js';
import { unsignedUntil } from './signing/signing.options.js';
import { outsideOfAnyFrame } from './tenancy/outside-of-any-frame.js';
import type { TenantContext } from './tenancy/tenant-context.js';
import { isOverWithin } from './within.js';
import { FailedJobSweep, type SweptQueue } from './recovery/failed-job.sweep.js';

/**
 * When what runs: workers only once the whole application is up, and all of them gone before Nest closes queues and
 * DataSource, which happens in `onApplicationShutdown`.
 */
@Injectable()
export class ApplicationLifecycle
  implements OnApplicationBootstrap, BeforeApplicationShutdown, OnApplicationShutdown
{
  readonly #workers: WorkerLifecycle;
  readonly #letters: LetterLifecycle;
  readonly #sweep: FailedJobSweep;
  readonly #metrics: MetricsLifecycle;
  readonly #subscriptions: (() => void)[] = [];

  constructor(
    private readonly engine: Engine,
    private readonly options: ResolvedOptions,
    private readonly events: JobEvents,
    discovery: DiscoveryService,
    host: ProcessorHost,
    tenants: TenantContext,
    private readonly checkUp: CheckUp,
  ) {
    const { queues, handlers, letters, log } = engine;
    const defaults = {
      leaseMs: options.leaseMs,
      maxResultBytes: options.results.maxBytes,
      policies: options.retryPolicies,
      dependencies: engine.dependencies,
    };
    this.#workers = new WorkerLifecycle(discovery, host, handlers, queues, defaults, options.processors, log);
    this.#letters = new LetterLifecycle(
      discovery,
      queues,
      tenants,
      new ToldStore(engine.database),
      new LetterQueries(engine.database),
      engine.sealer,
      log,
      events,
    );
    this.#metrics = new MetricsLifecycle(options.metrics, events, engine.gauges, log.trouble);
    this.#sweep = new FailedJobSweep(
      () => this.#sweptQueues(),
      letters,
      (settings, job, error) => host.buryUnprocessed(settings, job, error),
      log.trouble,
      options.sweepMs,
      (queue) => engine.endedJobs.sweep(queue),
    );
  }

  /** The processors whose workers run in this process. */
  get running(): readonly RunningProcessor[] {
    return this.#workers.running;
  }

  async onApplicationBootstrap(): Promise<void> {
    const { logs } = this.options;
    if (logs !== 'none') this.#subscriptions.push(logEvents(this.events, logs));
    this.#workers.prepare();
    this.#letters.prepare();
    this.#refuseShortRetention();
    if (this.options.doctor !== 'off') await this.#lookForSharedKeys();
    this.#warnOfUnsigned();
    await this.checkUp.run();
    this.#subscriptions.push(pauseWhileOpen(this.events, this.#pausedQueues(), this.engine.log.trouble));
    const { tracing } = this.options;
    const start = (): Promise<void> => this.#startMeasured();
    // Workers and timers started inside of a request's frame or trace would make everything they ever do part of it.
    await outsideOfAnyFrame(() => (tracing === undefined ? start() : tracing.detached(start)));
  }

  /** Where BullMQ does not answer, jobs that come by will tell. */
  async #lookForSharedKeys(): Promise<void> {
    const { queues, sharedKeys } = this.engine;
    const looks = this.running.map(async ({ settings: { queue, identify } }) => {
      const port = queues.portOf(queue);
      if (identify !== undefined && port !== undefined) await sharedKeys.look(port.bullmq, identify);
    });
    await isOverWithin(LOOK_MS, Promise.allSettled(looks));
  }

  #warnOfUnsigned(): void {
    const until = unsignedUntil(this.options.signing, Date.now());
    if (until !== undefined)
      this.engine.log.warn(
        `Jobs without a signature are run until ${until} (signing.acceptUnsignedUntil). Take it away once every process signs and no older job is left.`,
      );
  }

  /** An application that does not come up leaves no metrics behind: another one may take its place in this process. */
  async #startMeasured(): Promise<void> {
    this.#metrics.start(this.#knownNames());
    try {
      await this.#start();
    } catch (error) {
      this.#metrics.stop();
      throw error;
    }
  }

  async #start(): Promise<void> {
    this.#workers.start();
    await this.#letters.start();
    if (this.#workers.running.length > 0) this.#sweep.start();
    this.engine.pruner.start(this.options.pruneMs);
    this.engine.doubts.start(this.options.sweepMs);
    if (!this.options.dispatch.enabled) return;
    this.engine.redrives.start();
    this.engine.dispatcher.start();
    // Whoever does not hear looks now and then; a server that is silent must not keep the application from starting.
    void this.engine.listener.start();
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.#sweep.stop();
    const { drainMs, closeMs } = this.options.shutdown;
    await Promise.all([
      this.#workers.stop(drainMs, closeMs),
      this.#letters.stop(drainMs, closeMs),
      this.#endCalls(drainMs, closeMs),
    ]);
    // Counting a large redrive may take minutes; its lease runs out by itself.
    await isOverWithin(
      closeMs,
      Promise.all([this.engine.redrives.stop(), this.engine.pruner.stop(), this.engine.doubts.stop()]),
    );
    await this.engine.listener.stop(closeMs);
    await this.engine.dispatcher.stop();
    this.engine.leases.stop();
    await isOverWithin(closeMs, this.engine.unused.stop());
    this.#metrics.stop();
    for (const unsubscribe of this.#subscriptions) unsubscribe();
    this.engine.log.flush();
  }

  /** Last, like the application's own connections: what else shuts down may still look something up. */
  async onApplicationShutdown(): Promise<void> {
    await this.engine.database.close();
  }

  /** Guarded calls may finish like handlers; what does not is told through its signal, and its end is recorded. */
  async #endCalls(drainMs: number, closeMs: number): Promise<void> {
    const { calls } = this.engine;
    if (await calls.isEmptyWithin(drainMs)) return;
    calls.abandonAll('shutdown');
    await calls.isEmptyWithin(closeMs);
  }

  /** The queues registered here, with the means to tell whose a job is. */
  erasableQueues(): ErasableQueue[] {
    const { queues } = this.engine;
    return queues.names.map((name) => {
      const rule = this.running.find(({ settings }) => settings.queue === name)?.settings.identify;
      return {
        port: queues.portOf(name) as QueuePort,
        deadLetterPort: queues.portOf(queues.deadLetterQueueOf(name)) as QueuePort,
        tenantOf: (job) => tenantOfJob(job, rule),
      };
    });
  }

  /** @throws ConfigurationError if something outlives the ledger's memory, and could make it run an effect again */
  #refuseShortRetention(): void {
    const { queues } = this.engine;
    const problems = queues.names.flatMap((name) => {
      const port = queues.portOf(name) as QueuePort;
      const worker = this.running.find(({ settings }) => settings.queue === name)?.worker;
      return retentionProblems(queues.retentionOf(name), port.contents.jobRetention(worker)).map(
        (problem) => `queue "${name}": ${problem}`,
      );
    });
    if (problems.length === 0) return;
    throw new ConfigurationError(
      `Completed operations would be forgotten while something may still ask for them again, and would be run twice: ${problems.join('; ')}. Make retention.completedMs longer, or the others shorter.`,
    );
  }

  #knownNames(): KnownNames {
    const { queues, dependencies } = this.engine;
    return {
      queues: queues.names,
      jobs: this.running.map(({ settings }) => [settings.queue, settings.jobNames ?? []] as const),
      dependencies: dependencies.states.map(({ name }) => name),
      isListed: (queue, jobName) =>
        this.running.every(
          ({ settings }) => settings.queue !== queue || settings.payloadRuleOf(jobName).kind !== 'unlisted',
        ),
    };
  }

  #pausedQueues(): PausedQueue[] {
    return this.#workers.running.flatMap(({ settings: { queue, dependency }, pausesQueue }) =>
      pausesQueue && dependency !== undefined
        ? [{ port: this.engine.queues.portOf(queue) as QueuePort, dependency }]
        : [],
    );
  }

  #sweptQueues(): SweptQueue[] {
    return this.#workers.running.flatMap(({ settings }) => {
      const port = this.engine.queues.portOf(settings.queue);
      return port === undefined ? [] : [{ port, settings }];
    });
  }
}

/** A start does not wait longer for what the doctor would like to know. */
const LOOK_MS = 2_000;
