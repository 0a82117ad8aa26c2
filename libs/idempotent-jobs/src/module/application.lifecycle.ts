import {
  type BeforeApplicationShutdown,
  Inject,
  Injectable,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import type { QueuePort } from '../bullmq/queue-port.js';
import { LeaseKeeper } from '../ledger/claim/lease-keeper.js';
import { UnusedClaims } from '../ledger/claim/unused-claims.js';
import { LetterLifecycle } from '../dead-letters/letter.lifecycle.js';
import { BulkRedriveRunner } from '../dead-letters/bulk-redrive.runner.js';
import { Dependencies } from '../resilience/dependency/dependencies.js';
import { DispatchListener } from '../dispatch/dispatch-listener.js';
import { Dispatcher } from '../dispatch/dispatcher.js';
import { Doctor } from '../operate/doctor/doctor.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { RunningHandlers } from '../worker/attempt/running-handlers.js';
import type { ResolvedOptions } from './idempotent-jobs.options.js';
import { type PausedQueue, pauseWhileOpen } from '../worker/host/queue-pause.js';
import { SharedKeys } from '../worker/intake/shared-keys.js';
import { WorkerLifecycle } from '../worker/host/worker.lifecycle.js';
import { GaugeReader } from '../observe/metrics/gauge.reader.js';
import { MetricsLifecycle } from '../observe/metrics/metrics.lifecycle.js';
import type { KnownNames } from '../observe/metrics/metrics.subscriber.js';
import { JobEvents } from '../events/job-events.js';
import { LibraryLog } from '../events/library-log.js';
import { logEvents } from '../observe/log.subscriber.js';
import { ConfigurationError } from '../operation/errors.js';
import { Database } from '../ledger/postgres/database.js';
import { DoubtSweep } from '../worker/recovery/doubt.sweep.js';
import { FailedJobSweep } from '../worker/recovery/failed-job.sweep.js';
import type { SweptQueue } from '../worker/recovery/ended-job.sweep.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { Pruner } from '../operate/retention/pruner.js';
import { retentionProblems } from '../ledger/retention.options.js';
import { unsignedUntil } from '../producer/signer.js';
import { outsideOfAnyFrame } from '../tenancy/frames.js';
import { isOverWithin } from '../operation/within.js';

/**
 * Starts and stops what runs. Workers start only once the whole application is up, and all of them have ended before Nest
 * closes queues and DataSource, which happens in `onApplicationShutdown`.
 */
@Injectable()
export class ApplicationLifecycle
  implements OnApplicationBootstrap, BeforeApplicationShutdown, OnApplicationShutdown
{
  readonly #metrics: MetricsLifecycle;
  readonly #subscriptions: (() => void)[] = [];

  constructor(
    @Inject(RESOLVED_OPTIONS) private readonly options: ResolvedOptions,
    private readonly database: Database,
    private readonly queues: QueueRegistry,
    private readonly dependencies: Dependencies,
    private readonly events: JobEvents,
    private readonly log: LibraryLog,
    private readonly workers: WorkerLifecycle,
    private readonly handlers: RunningHandlers,
    private readonly letters: LetterLifecycle,
    private readonly failedJobs: FailedJobSweep,
    private readonly doubts: DoubtSweep,
    private readonly pruner: Pruner,
    private readonly redrives: BulkRedriveRunner,
    private readonly dispatcher: Dispatcher,
    private readonly listener: DispatchListener,
    private readonly leases: LeaseKeeper,
    private readonly unused: UnusedClaims,
    private readonly sharedKeys: SharedKeys,
    private readonly doctor: Doctor,
    gauges: GaugeReader,
  ) {
    this.#metrics = new MetricsLifecycle(options.metrics, events, gauges, log.trouble);
  }

  async onApplicationBootstrap(): Promise<void> {
    const { logs } = this.options;
    if (logs !== 'none') this.#subscriptions.push(logEvents(this.events, logs));
    this.workers.prepare();
    this.letters.prepare();
    this.#refuseShortRetention();
    await this.queues.assertTables();
    if (this.options.doctor !== 'off') await this.#lookForSharedKeys();
    this.#warnOfUnsigned();
    await this.doctor.checkUp();
    this.#subscriptions.push(pauseWhileOpen(this.events, this.#pausedQueues(), this.log.trouble));
    const { tracing } = this.options;
    const start = (): Promise<void> => this.#startMeasured();
    // Workers and timers that are started inside of a request's frame or trace would stay part of it for good.
    await outsideOfAnyFrame(() => (tracing === undefined ? start() : tracing.detached(start)));
  }

  /** Finds schedulers whose iterations all name one operation. If BullMQ does not answer in time, later jobs show them. */
  async #lookForSharedKeys(): Promise<void> {
    const { queues, sharedKeys } = this;
    const looks = this.workers.running.map(async ({ rules: { queue, identify } }) => {
      const port = queues.portOf(queue);
      if (identify !== undefined && port !== undefined) await sharedKeys.look(port.bullmq, identify);
    });
    await isOverWithin(LOOK_MS, Promise.allSettled(looks));
  }

  #warnOfUnsigned(): void {
    const until = unsignedUntil(this.options.signing, Date.now());
    if (until !== undefined)
      this.log.warn(
        `Jobs without a signature are run until ${until} (signing.acceptUnsignedUntil). Take it away once every process signs and no older job is left.`,
      );
  }

  /** Stops the metrics of an application that fails to start, because another one may take its place in this process. */
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
    this.workers.start();
    await this.letters.start();
    if (this.workers.running.length > 0) this.failedJobs.start(this.options.sweepMs, this.#sweptQueues());
    this.pruner.start(this.options.pruneMs);
    this.doubts.start(this.options.sweepMs);
    if (!this.options.dispatch.enabled) return;
    this.redrives.start();
    this.dispatcher.start();
    // Not awaited: a silent server must not keep the application from starting. Without the listener, the dispatcher
    // polls.
    void this.listener.start();
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.failedJobs.stop();
    const { drainMs, closeMs } = this.options.shutdown;
    await Promise.all([
      this.workers.stop(drainMs, closeMs),
      this.letters.stop(drainMs, closeMs),
      this.#endCalls(drainMs, closeMs),
    ]);
    // Counting a large redrive may take minutes; its lease runs out by itself.
    await isOverWithin(closeMs, Promise.all([this.redrives.stop(), this.pruner.stop(), this.doubts.stop()]));
    await this.listener.stop(closeMs);
    await this.dispatcher.stop();
    this.leases.stop();
    await isOverWithin(closeMs, this.unused.stop());
    this.#metrics.stop();
    for (const unsubscribe of this.#subscriptions) unsubscribe();
    this.log.flush();
  }

  /** Closes the library's connections last, because other providers may still query while they shut down. */
  async onApplicationShutdown(): Promise<void> {
    await this.database.close();
  }

  /** Lets guarded calls finish, like handlers. Those that do not are aborted by their signal, and their end is recorded. */
  async #endCalls(drainMs: number, closeMs: number): Promise<void> {
    if (await this.handlers.isEmptyWithin(drainMs)) return;
    this.handlers.abandonAll('shutdown');
    await this.handlers.isEmptyWithin(closeMs);
  }

  /** @throws ConfigurationError if something outlives the ledger's memory, and could make it run an effect again */
  #refuseShortRetention(): void {
    const { queues } = this;
    const problems = queues.names.flatMap((name) => {
      const port = queues.portOf(name) as QueuePort;
      const worker = this.workers.running.find(({ rules }) => rules.queue === name)?.worker;
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
    const { queues, dependencies } = this;
    return {
      queues: queues.names,
      jobs: this.workers.running.map(({ rules }) => [rules.queue, rules.jobNames] as const),
      dependencies: dependencies.states.map(({ name }) => name),
      isListed: (queue, jobName) =>
        this.workers.running.every(
          ({ rules }) => rules.queue !== queue || rules.payloadRuleOf(jobName).kind !== 'unlisted',
        ),
    };
  }

  #pausedQueues(): PausedQueue[] {
    return this.workers.running.flatMap(({ rules: { queue, dependency }, pausesQueue }) =>
      pausesQueue && dependency !== undefined
        ? [{ port: this.queues.portOf(queue) as QueuePort, dependency }]
        : [],
    );
  }

  #sweptQueues(): SweptQueue[] {
    return this.workers.running.flatMap(({ rules }) => {
      const port = this.queues.portOf(rules.queue);
      return port === undefined ? [] : [{ port, rules }];
    });
  }
}

/** How long a start waits for that look at BullMQ's schedulers. */
const LOOK_MS = 2_000;
