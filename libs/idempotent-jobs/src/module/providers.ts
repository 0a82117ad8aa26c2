import { type Provider, type Type } from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import { getDataSourceToken } from '@nestjs/typeorm';
import type { DataSource } from 'typeorm';
import { ApplicationLifecycle } from './application.lifecycle.js';
import { AttemptRunner } from '../worker/attempt/attempt.runner.js';
import { AttemptRecorder } from '../worker/attempt/attempt.recorder.js';
import { AttemptReporter } from '../worker/attempt/attempt.reporter.js';
import { OperationRunner } from '../worker/attempt/operation.runner.js';
import { FollowUps } from '../worker/attempt/follow-ups.js';
import { Grounds } from '../worker/attempt/grounds.js';
import { Reconciler } from '../worker/attempt/reconciler.js';
import { IdempotencyService } from '../calls/idempotency.service.js';
import { ClaimStore } from '../ledger/claim/claim.store.js';
import { OptimisticStore } from '../ledger/claim/optimistic.store.js';
import { Exchange } from '../ledger/claim/exchange.js';
import { LeaseKeeper } from '../ledger/claim/lease-keeper.js';
import { UnusedClaims } from '../ledger/claim/unused-claims.js';
import { ActionStore } from '../dead-letters/action.store.js';
import { DeadLetterWriter } from '../worker/acknowledge/dead-letter.writer.js';
import { DeadLetterService } from '../dead-letters/dead-letter.service.js';
import { EditedRedrive } from '../dead-letters/edited-redrive.js';
import { LetterLifecycle } from '../dead-letters/letter.lifecycle.js';
import { LetterQueries } from '../dead-letters/letter.queries.js';
import { LetterStore } from '../dead-letters/letter.store.js';
import { BulkRedriveRunner } from '../dead-letters/bulk-redrive.runner.js';
import { BulkRedriveStore } from '../dead-letters/bulk-redrive.store.js';
import { NotificationStore } from '../dead-letters/letter.listener.js';
import { Dependencies } from '../resilience/dependency/dependencies.js';
import { DependencyGuard } from '../calls/dependency-guard.js';
import { DispatchListener } from '../dispatch/dispatch-listener.js';
import { DispatchService } from '../dispatch/dispatch.service.js';
import { Dispatcher } from '../dispatch/dispatcher.js';
import { Due } from '../producer/due.js';
import { LetterSource } from '../dispatch/letter.source.js';
import { OperationSource } from '../dispatch/operation.source.js';
import { Doctor } from '../operate/doctor/doctor.js';
import { QueueDirectory } from '../operate/doctor/queue-directory.js';
import { OperationStore } from '../producer/operation.store.js';
import { QueueServices } from '../producer/acceptance.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { RunningHandlers } from '../worker/attempt/running-handlers.js';
import { IdempotentJobsHealthIndicator } from '../operate/health/idempotent-jobs.health.js';
import { type ResolvedOptions } from './idempotent-jobs.options.js';
import { EnhancerChains } from '../worker/intake/enhancer-chain.js';
import { IdempotencyInterceptor } from '../worker/intake/idempotency.interceptor.js';
import { BundleHost } from '../worker/host/bundle-host.js';
import { ProcessorHost } from '../worker/host/processor-host.js';
import { SharedKeys } from '../worker/intake/shared-keys.js';
import { WorkerLifecycle } from '../worker/host/worker.lifecycle.js';
import { GaugeReader } from '../observe/metrics/gauge.reader.js';
import { JobEvents } from '../events/job-events.js';
import { LibraryLog } from '../events/library-log.js';
import { ConfigurationError } from '../operation/errors.js';
import { OutcomeService } from '../outcome/outcome.service.js';
import { Database } from '../ledger/postgres/database.js';
import { schemaOf } from '../ledger/postgres/migrations.js';
import { prepareLedger } from '../ledger/postgres/prepare-ledger.js';
import { OutcomeStore } from '../ledger/record/outcome.store.js';
import { DoubtSweep } from '../worker/recovery/doubt.sweep.js';
import { EndedJobSweep } from '../worker/recovery/ended-job.sweep.js';
import { FailedJobSweep } from '../worker/recovery/failed-job.sweep.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { Erasure } from '../operate/retention/erasure.js';
import { Pruner } from '../operate/retention/pruner.js';
import { RetentionService } from '../operate/retention/retention.service.js';
import { Encryption } from '../ledger/encryption/encryption.js';
import { Signer } from '../producer/signer.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import { TenantMiddleware } from '../tenancy/tenant.middleware.js';
import { JobIdentifier } from '../worker/identify/identify.js';
import { JobPipeline } from '../worker/pipeline.js';

/**
 * Two roots would be two applications of the library in one process, each with options of its own, and an injection would
 * get the one or the other.
 *
 * @throws ConfigurationError
 */
function refuseSecondRoot(modules: ModulesContainer): void {
  const roots = [...modules.values()].filter(({ providers }) => providers.has(Database)).length;
  if (roots <= 1) return;
  throw new ConfigurationError(
    `IdempotentJobsModule.forRoot() or forRootAsync() is imported ${roots} times in this application. Import it once, in the root module: what it provides is global. Modules that use a queue import IdempotentJobsModule.registerQueue() only.`,
  );
}

/** Checks that the ledger exists at the right version before any other provider is made that might query it. */
export function databaseProvider(dataSource: ReturnType<typeof getDataSourceToken>): Provider {
  return {
    provide: Database,
    inject: [dataSource, RESOLVED_OPTIONS, LibraryLog, ModulesContainer],
    useFactory: async (
      source: DataSource,
      options: ResolvedOptions,
      log: LibraryLog,
      modules: ModulesContainer,
    ): Promise<Database> => {
      refuseSecondRoot(modules);
      const database = new Database(source, options.schema ?? schemaOf(source.options), options.pool);
      await prepareLedger(database, options, log);
      return database;
    },
  };
}

/** Parts that applications do not inject. */
export const PARTS: readonly Provider[] = [
  LibraryLog,
  Signer,
  Dependencies,
  OperationStore,
  LetterStore,
  OutcomeStore,
  ClaimStore,
  Exchange,
  OptimisticStore,
  JobIdentifier,
  BulkRedriveStore,
  ActionStore,
  BulkRedriveRunner,
  EditedRedrive,
  Encryption,
  NotificationStore,
  GaugeReader,
  LetterQueries,
  LeaseKeeper,
  UnusedClaims,
  RunningHandlers,
  Due,
  QueueServices,
  OperationSource,
  LetterSource,
  Dispatcher,
  DispatchListener,
  FollowUps,
  AttemptReporter,
  AttemptRecorder,
  Reconciler,
  Grounds,
  AttemptRunner,
  OperationRunner,
  DeadLetterWriter,
  SharedKeys,
  JobPipeline,
  EnhancerChains,
  WorkerLifecycle,
  LetterLifecycle,
  DoubtSweep,
  EndedJobSweep,
  FailedJobSweep,
  Pruner,
  Erasure,
  QueueDirectory,
  ApplicationLifecycle,
];

/** What applications inject, and what the library's decorators and queue modules inject. */
export const PUBLIC: readonly Type[] = [
  TenantContext,
  TenantMiddleware,
  JobEvents,
  IdempotencyInterceptor,
  QueueRegistry,
  BundleHost,
  ProcessorHost,
  OutcomeService,
  DeadLetterService,
  IdempotencyService,
  DependencyGuard,
  DispatchService,
  RetentionService,
  IdempotentJobsHealthIndicator,
  Doctor,
];
