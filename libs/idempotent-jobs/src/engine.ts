import type { DataSource } from 'typeorm';
import { AttemptBook } from './attempt/attempt-book.js';
import { AttemptReporter } from './attempt/attempt.reporter.js';
import { AttemptRunner } from './attempt/attempt.runner.js';
import { FollowUps } from './attempt/follow-ups.js';
import { Inquiry } from './attempt/inquiry.js';
import { LeasedAttempt } from './attempt/leased.attempt.js';
import { TransactionalAttempt } from './attempt/transactional.attempt.js';
import type { QueueContents } from './bullmq/queue-contents.js';
import type { QueuePort } from './bullmq/queue-port.js';
import { IdempotencyService } from './call/idempotency.service.js';
import { DoubtSweep } from './recovery/doubt.sweep.js';
import { EndedJobStore } from './recovery/ended-job.store.js';
import { EndedJobSweep } from './recovery/ended-job.sweep.js';
import { ClaimStore } from './claim/claim.store.js';
import { LeaseKeeper } from './claim/lease-keeper.js';
import { UnusedClaims } from './claim/unused-claims.js';
import { ActionStore } from './dead-letter/action.store.js';
import { Burials } from './dead-letter/burials.js';
import { DeadLetterService, type OnClosed } from './dead-letter/dead-letter.service.js';
import { EditedRedrive } from './dead-letter/edited-redrive.js';
import { LetterStore } from './dead-letter/letter.store.js';
import { RedriveRunner } from './dead-letter/redrive.runner.js';
import { RedriveStore } from './dead-letter/redrive.store.js';
import { Dependencies } from './dependency/dependencies.js';
import { SharedKeys } from './intake/shared-keys.js';
import { workerIdentity } from './intake/worker-identity.js';
import { Pruner } from './retention/pruner.js';
import { DispatchListener } from './dispatch/dispatch-listener.js';
import { Dispatcher } from './dispatch/dispatcher.js';
import { LetterSource } from './dispatch/letter.source.js';
import { OperationSource } from './dispatch/operation.source.js';
import { OperationStore } from './enqueue/operation.store.js';
import { QueueRegistry } from './enqueue/queue-registry.js';
import { AttemptRegistry } from './execute/attempt-registry.js';
import type { ResolvedOptions } from './idempotent-jobs.options.js';
import { JobPipeline } from './job-pipeline.js';
import { GaugeReader } from './metrics/gauge.reader.js';
import { LEDGER_GAUGES } from './metrics/ledger-gauges.statement.js';
import type { JobEvents } from './observe/job-events.js';
import { LibraryLog } from './observe/library-log.js';
import { Settler } from './outcome/settler.js';
import { Database } from './postgres/database.js';
import { schemaOf } from './postgres/migrations.js';
import { OutcomeStore } from './record/outcome.store.js';
import { Sealer } from './sealing/sealer.js';
import { Signer } from './signing/signer.js';
import type { TenantContext } from './tenancy/tenant-context.js';

/** The parts of one application, put together. */
export interface Engine {
  readonly database: Database;
  readonly dependencies: Dependencies;
  readonly sealer: Sealer;
  readonly queues: QueueRegistry;
  readonly pipeline: JobPipeline;
  readonly leases: LeaseKeeper;
  readonly unused: UnusedClaims;
  readonly attempts: AttemptRegistry;
  readonly letters: LetterStore;
  readonly dispatcher: Dispatcher;
  readonly listener: DispatchListener;
  readonly redrives: RedriveRunner;
  readonly deadLetters: DeadLetterService;
  readonly settler: Settler;
  readonly idempotency: IdempotencyService;
  /** The guarded calls that run right now. */
  readonly calls: AttemptRegistry;
  readonly doubts: DoubtSweep;
  readonly endedJobs: EndedJobSweep;
  readonly pruner: Pruner;
  readonly gauges: GaugeReader;
  readonly log: LibraryLog;
  readonly sharedKeys: SharedKeys;
}

/** A redrive is begun by a person, and carried on by the process that began it unless that dies. */
const REDRIVE_POLL_MS = 2_000;

/** Puts the steps together. What knows Nest (module, decorator, interceptor, lifecycle) is not among them. */
export function assembleEngine(
  dataSource: DataSource,
  options: ResolvedOptions,
  tenants: TenantContext,
  events: JobEvents,
): Engine {
  const log = new LibraryLog();
  const onError = log.trouble;

  const database = new Database(dataSource, options.schema ?? schemaOf(dataSource.options), options.pool);
  const sealer = new Sealer(options.encryption);
  const signer = new Signer(options.signing);
  const dependencies = new Dependencies(options.dependencies, {
    events,
    now: () => performance.now(),
    random: Math.random,
  });
  const operations = new OperationStore(database);
  const letters = new LetterStore(database);
  const outcomes = new OutcomeStore(database, sealer);
  const claims = new ClaimStore(database, sealer);
  const leases = new LeaseKeeper(database);
  const unused = new UnusedClaims(database);
  const attempts = new AttemptRegistry();

  const wakeDispatcher = (): boolean => {
    dispatcher.wake();
    return dispatcher.isRunning;
  };
  const queues = new QueueRegistry(
    {
      database,
      operations,
      sealer,
      signer,
      tenants,
      events,
      traceContext: options.traceContext,
      retryPolicies: options.retryPolicies,
      tracing: options.tracing,
      wakeDispatcher,
      maxPayloadBytes: options.enqueue.maxPayloadBytes,
      redispatchAfterMs: Math.min(options.dispatch.redispatchAfterMs, options.dispatch.redispatchMaxMs),
      onError,
    },
    options.retention,
  );
  const { redispatchAfterMs: afterMs, redispatchMaxMs: maxMs, pollMs } = options.dispatch;
  const dispatcher: Dispatcher = new Dispatcher({
    sources: [
      new OperationSource(database, { afterMs, maxMs }, options.tracing, signer),
      new LetterSource(database, (queue) => queues.deadLetterQueueOf(queue), { afterMs, maxMs }),
    ],
    queues: () => queues.names,
    portOf: (queue) => queues.portOf(queue),
    onError,
    pollMs,
    tracing: options.tracing,
  });
  const listener = new DispatchListener(database, () => dispatcher.wake(), onError);

  const followUps = new FollowUps(operations, letters, events);
  const reporter = new AttemptReporter(events);
  const book = new AttemptBook(outcomes, reporter, wakeDispatcher, Math.random);
  const inquiry = new Inquiry(outcomes, book, followUps, database, reporter, wakeDispatcher);
  const leased = new LeasedAttempt(
    claims,
    leases,
    outcomes,
    book,
    followUps,
    database,
    reporter,
    inquiry,
    unused,
    wakeDispatcher,
  );
  const transactional = new TransactionalAttempt(
    claims,
    outcomes,
    book,
    followUps,
    database,
    reporter,
    wakeDispatcher,
  );
  const runner = new AttemptRunner(leased, transactional, book, inquiry, claims, Math.random);
  const burials = new Burials(letters, events, sealer, wakeDispatcher);
  const sharedKeys = new SharedKeys(log);
  const pipeline = new JobPipeline(
    tenants,
    runner,
    attempts,
    burials,
    events,
    sealer,
    signer,
    (queue) => ({
      read: (jobId) => contentsOf(queue).noteOn(jobId),
      write: (jobId, note) => contentsOf(queue).writeNoteOn(jobId, note),
    }),
    Math.random,
    options.tracing,
    sharedKeys,
  );

  const redriveStore = new RedriveStore(database);
  const onDue = async (queue: string): Promise<void> => {
    if (!wakeDispatcher()) await operations.announce(operations.onPool, queue);
  };
  const actions = new ActionStore(database, options.retention);
  const onClosed: OnClosed = ({ id: letterId, queue, jobName, jobId, identity }, as, actor) =>
    events.emit({ kind: 'letter_closed', queue, jobName, jobId, ...identity, letterId, as, actor });
  const redrives = new RedriveRunner({
    store: redriveStore,
    actions,
    onClosed,
    runnerId: workerIdentity()(),
    onDue,
    onError,
    pollMs: REDRIVE_POLL_MS,
  });
  const deadLetters = new DeadLetterService({
    database,
    store: redriveStore,
    actions,
    sealer,
    tenants,
    edited: new EditedRedrive(
      database,
      operations,
      sealer,
      (queue, jobName, payload, identity) => queues.queueOf(queue)?.ask(jobName, payload, identity),
      options.editedRedrive,
      options.retention,
    ),
    onClosed,
    onDue,
    wakeRunner: () => redrives.wake(),
  });
  const calls = new AttemptRegistry();
  const idempotency = new IdempotencyService({
    attempts: calls,
    tenants,
    events,
    leaseMs: options.leaseMs,
    retentionMs: options.retention.completedMs,
    maxResultBytes: options.results.maxBytes,
    classify: dependencies.readingOf,
    run: (context, handler) => runner.run(context, handler),
    nextWorkerId: workerIdentity(),
    tracing: options.tracing,
  });
  const doubts = new DoubtSweep(database, outcomes, wakeDispatcher, onError);
  const endedJobs = new EndedJobSweep({
    store: new EndedJobStore(database),
    outcomes,
    events,
    sealer,
    signer,
    onLetter: wakeDispatcher,
    onError,
  });
  const settler = new Settler({
    actions,
    events,
    sealer,
    onDue,
    onClosed,
  });
  const pruner = new Pruner(database, onError);
  const contentsOf = (queue: string): QueueContents => (queues.portOf(queue) as QueuePort).contents;
  const gauges = new GaugeReader({
    queues: () => queues.names,
    depthOf: (queue) => contentsOf(queue).depth(),
    oldestWaitingMsOf: (queue) => contentsOf(queue).oldestWaitingMs(),
    ledger: () => database.run(LEDGER_GAUGES, []),
    dependencies: () => dependencies.states,
  });
  return {
    database,
    dependencies,
    sealer,
    queues,
    pipeline,
    leases,
    unused,
    attempts,
    letters,
    dispatcher,
    listener,
    redrives,
    deadLetters,
    settler,
    idempotency,
    calls,
    doubts,
    endedJobs,
    pruner,
    gauges,
    log,
    sharedKeys,
  };
}
