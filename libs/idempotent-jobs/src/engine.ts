import { messageOf } from './operation/message-of.js';
import { Logger } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { AttemptBook } from './attempt/attempt-book.js';
import { AttemptRunner } from './attempt/attempt.runner.js';
import { FollowUps } from './attempt/follow-ups.js';
import { LeasedAttempt } from './attempt/leased.attempt.js';
import { TransactionalAttempt } from './attempt/transactional.attempt.js';
import { ClaimStore } from './claim/claim.store.js';
import { LeaseKeeper } from './claim/lease-keeper.js';
import { LetterStore } from './dead-letter/letter.store.js';
import { DispatchListener } from './dispatch/dispatch-listener.js';
import { Dispatcher } from './dispatch/dispatcher.js';
import { LetterSource } from './dispatch/letter.source.js';
import { OperationSource } from './dispatch/operation.source.js';
import { OperationStore } from './enqueue/operation.store.js';
import { QueueRegistry } from './enqueue/queue-registry.js';
import { AttemptRegistry } from './execute/attempt-registry.js';
import type { ResolvedOptions } from './idempotent-jobs.options.js';
import { JobPipeline } from './job-pipeline.js';
import type { JobEvents } from './observe/job-events.js';
import { Database } from './postgres/database.js';
import { schemaOf } from './postgres/migrations.js';
import { OutcomeStore } from './record/outcome.store.js';
import type { TenantContext } from './tenancy/tenant-context.js';

/** The parts of one application, put together. */
export interface Engine {
  readonly database: Database;
  readonly queues: QueueRegistry;
  readonly pipeline: JobPipeline;
  readonly leases: LeaseKeeper;
  readonly attempts: AttemptRegistry;
  readonly letters: LetterStore;
  readonly dispatcher: Dispatcher;
  readonly listener: DispatchListener;
}

/** Puts the steps together. What knows Nest (module, decorator, interceptor, lifecycle) is not among them. */
export function assembleEngine(
  dataSource: DataSource,
  options: ResolvedOptions,
  tenants: TenantContext,
  events: JobEvents,
): Engine {
  const logger = new Logger('IdempotentJobs');
  const onError = (message: string, error: unknown): void => logger.warn(`${message}: ${messageOf(error)}`);

  const database = new Database(dataSource, options.schema ?? schemaOf(dataSource.options));
  const operations = new OperationStore(database);
  const letters = new LetterStore(database);
  const outcomes = new OutcomeStore(database, options.retentionMs);
  const claims = new ClaimStore(database);
  const leases = new LeaseKeeper(database);
  const attempts = new AttemptRegistry();

  const wakeDispatcher = (): boolean => {
    dispatcher.wake();
    return dispatcher.isRunning;
  };
  const queues = new QueueRegistry({
    database,
    operations,
    tenants,
    events,
    traceContext: options.traceContext,
    wakeDispatcher,
  });
  const { redispatchAfterMs: afterMs, redispatchMaxMs: maxMs, pollMs } = options.dispatch;
  const dispatcher: Dispatcher = new Dispatcher({
    sources: [
      new OperationSource(database, { afterMs, maxMs }),
      new LetterSource(database, (queue) => queues.deadLetterQueueOf(queue)),
    ],
    queues: () => queues.names,
    portOf: (queue) => queues.portOf(queue),
    onError,
    pollMs,
  });
  const listener = new DispatchListener(database, () => dispatcher.wake(), onError);

  const followUps = new FollowUps(operations, letters);
  const book = new AttemptBook(outcomes, events, wakeDispatcher, Math.random);
  const leased = new LeasedAttempt(
    claims,
    leases,
    outcomes,
    book,
    followUps,
    database,
    events,
    wakeDispatcher,
  );
  const transactional = new TransactionalAttempt(
    claims,
    outcomes,
    book,
    followUps,
    database,
    events,
    wakeDispatcher,
  );
  const runner = new AttemptRunner(leased, transactional, book, Math.random);
  const pipeline = new JobPipeline(tenants, runner, attempts, letters, events, Math.random);
  return { database, queues, pipeline, leases, attempts, letters, dispatcher, listener };
}
