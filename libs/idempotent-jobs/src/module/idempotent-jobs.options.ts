import type { AsyncOptions } from '../option-checks/async-options.js';
import { type DependencyOptions, resolveDependencies } from '../resilience/dependency/dependency.options.js';
import { type ProcessorOverrides, readOverrides } from '../worker/rules/processor-overrides.js';
import { resolvePolicies, type RetryPolicies } from '../worker/rules/retry.options.js';
import type { MetricsAdapter } from '../observe/metrics/metrics.port.js';
import { ConfigurationError } from '../operation/errors.js';
import { type OptionChecks, optionChecks } from '../option-checks/option-checks.js';
import { DEFAULT_POOL } from '../ledger/postgres/database.js';
import { MIN_CONNECTIONS } from '../ledger/postgres/lanes.js';
import type { LedgerPoolOptions } from '../ledger/postgres/ledger-pool.js';
import { readPartitions } from '../ledger/postgres/partitions.js';
import { DEFAULT_MAX_RESULT_BYTES } from '../ledger/record/recorded-result.js';
import { DEFAULT_RETENTION, resolveRetention, type RetentionOptions } from '../ledger/retention.options.js';
import { type EncryptionOptions, readKeyRing } from '../ledger/encryption/key-ring.js';
import { readSigning, type SigningOptions } from '../producer/signer.js';
import type { Tracing } from '../tracing/tracing.js';

/** Options of `IdempotentJobsModule.forRoot()`. Every number is checked once, at boot. */
export interface IdempotentJobsOptions {
  /** The TypeORM DataSource that holds the ledger, by its name. Default: the default DataSource. */
  readonly dataSource?: string;
  /** The Postgres schema of the ledger. Default: the DataSource's `schema`, else `public`. */
  readonly schema?: string;
  /**
   * What to do about the ledger's schema at boot. `check` (default) fails with instructions when the schema is missing or
   * outdated; `run` creates and upgrades it under an advisory lock.
   */
  readonly migrations?: 'run' | 'check';
  /**
   * In how many partitions by tenant `job_outcomes` is made, where `migrations: 'run'` makes the ledger: a whole number from
   * 2 to 64. An existing ledger is left as it is, and a warning says that it differs. Default: one ordinary table.
   */
  readonly partitions?: number;
  /** The library's own connections to Postgres, in addition to those of the DataSource. */
  readonly pool?: {
    /** The most connections in this process. At least 4. Default 8. One more listens for NOTIFY. */
    readonly max?: number;
    /**
     * Options of pg that differ from the DataSource's, for example `{ host, port }` of Postgres itself where the
     * DataSource goes through a pooler in transaction mode. They must lead to the same database.
     */
    readonly connection?: Readonly<Record<string, unknown>>;
  };
  /** How long a vanished worker keeps its claims, in ms; renewed after a third. At least 500. Default 30,000. */
  readonly leaseMs?: number;
  /**
   * Retry policies by name, for processors (`retry: 'charge'`), job names (`retryByJob`) and single operations
   * (`enqueue(…, { retryPolicy: 'charge' })`).
   */
  readonly retryPolicies?: RetryPolicies;
  /**
   * Services that handlers call and that may fail, by name: for processors (`dependency: 'gateway'`) and
   * {@link DependencyGuard}.
   */
  readonly dependencies?: Readonly<Record<string, DependencyOptions>>;
  /**
   * Options of processors, by queue. They override those of the decorator, which is evaluated before configuration can be
   * read: `processors: { charges: { concurrency: config.get('CHARGES_CONCURRENCY') } }`.
   */
  readonly processors?: Readonly<Record<string, ProcessorOverrides>>;
  /** How long the ledger keeps operations and letters. A queue may have its own: `registerQueue({ name, retention })`. */
  readonly retention?: RetentionOptions;
  readonly tenants?: {
    /** The tenant of a request, for {@link TenantMiddleware}. Undefined when it has none. May be asynchronous. */
    readonly resolve?: (request: any) => string | undefined | Promise<string | undefined>;
  };
  readonly enqueue?: {
    /**
     * The largest payload, as JSON in UTF-8, in bytes. Postgres and the queue store it, and every attempt reads it.
     * Default 1 MiB.
     */
    readonly maxPayloadBytes?: number;
  };
  readonly results?: {
    /**
     * The largest result of a handler, as JSON in UTF-8, in bytes. A larger one is not kept: the operation completes
     * without a result, and its event and `Outcome.resultOmitted` say so. Default 1 MiB.
     */
    readonly maxBytes?: number;
  };
  /** Encrypts payloads and results in the ledger and in BullMQ. Default: they are stored as plain JSON. */
  readonly encryption?: EncryptionOptions;
  /**
   * Signs jobs on their way through BullMQ. A job that is unsigned or was changed is refused, with a dead letter
   * `identity_missing` or `tenant_mismatch`. All processes need the keys. Default: jobs are not signed.
   */
  readonly signing?: SigningOptions;
  readonly dispatch?: {
    /** Whether this process dispatches operations to their queues. At least one process must. Default true. */
    readonly enabled?: boolean;
    /** How often to look for due operations when no signal arrives, in ms. Default 1,000. */
    readonly pollMs?: number;
    /** After how long an operation that is on its queue but not settled is put there again, in ms. Default 15 min. */
    readonly redispatchAfterMs?: number;
    /** The time between such puts doubles up to this, in ms. Default 6 h. */
    readonly redispatchMaxMs?: number;
  };
  readonly recovery?: {
    /**
     * How often to look for failed BullMQ jobs without a dead letter, for operations in doubt that no worker looks after,
     * and for operations whose job has ended without them, in ms. Default 30,000.
     */
    readonly sweepMs?: number;
    /** How often to delete what is past its retention, in ms. Default 1 h. */
    readonly pruneMs?: number;
  };
  readonly deadLetters?: {
    /** Whether a person may redrive a dead letter under another identity or with another payload. Default false. */
    readonly editedRedrive?: boolean;
  };
  readonly shutdown?: {
    /** How long running handlers may take to finish before their signals are aborted, in ms. Default 20,000. */
    readonly drainMs?: number;
    /** How long to wait for workers to close after that, in ms. Default 5,000. */
    readonly closeMs?: number;
  };
  /**
   * Which transitions are logged: `all`, only `problems` (retries, doubt, death, and deferrals other than a dependency's),
   * or `none`. Default `all`.
   */
  readonly logs?: 'all' | 'problems' | 'none';
  /** Where metrics go: `prometheusMetrics()`, `otelMetrics()`, or an adapter of your own. Default: nowhere. */
  readonly metrics?: readonly MetricsAdapter[];
  /**
   * What to do at boot about what the {@link Doctor} finds. `warn` (default) logs each error and warning as one line;
   * `fail` refuses to start and names all of them; `off` skips the check.
   */
  readonly doctor?: 'warn' | 'fail' | 'off';
  /**
   * Spans for enqueueing, attempts, steps and calls, in one trace from the request that enqueued to the last attempt:
   * `otelTracing()` from `nestjs-idempotent-jobs/otel`. Default: none. Cannot be combined with {@link traceContext}.
   */
  readonly tracing?: Tracing;
  /** Without {@link tracing}: the trace context for an enqueued operation, e.g. a W3C carrier. Must be JSON. */
  readonly traceContext?: () => unknown;
}

/** Options of `IdempotentJobsModule.forRootAsync()`: from `useFactory`, `useClass` or `useExisting`. */
export interface IdempotentJobsAsyncOptions extends AsyncOptions<
  Omit<IdempotentJobsOptions, 'dataSource'>,
  IdempotentJobsOptionsFactory
> {
  /** As in {@link IdempotentJobsOptions}. Given here because it is needed before the other options are known. */
  readonly dataSource?: string;
}

/** Implemented by the class that `forRootAsync({ useClass })` or `forRootAsync({ useExisting })` names. */
export interface IdempotentJobsOptionsFactory {
  createIdempotentJobsOptions():
    Omit<IdempotentJobsOptions, 'dataSource'> | Promise<Omit<IdempotentJobsOptions, 'dataSource'>>;
}

/** The options with all defaults filled in. */
export type ResolvedOptions = ReturnType<typeof resolveOptions>;

/** Fills in the defaults. @throws ConfigurationError naming each option that is wrong, its value and the fix */
export function resolveOptions(options: Omit<IdempotentJobsOptions, 'dataSource'>) {
  const checks = optionChecks('IdempotentJobsModule.forRoot()');
  const resolved = {
    schema: options.schema,
    migrations: checks.oneOf('migrations', options.migrations, ['run', 'check'], 'check'),
    partitions: readPartitions(checks, options.partitions),
    pool: resolvePool(checks, options.pool),
    leaseMs: checks.timer('leaseMs', options.leaseMs, 30_000, 500),
    retryPolicies: resolvePolicies(checks, options.retryPolicies),
    dependencies: resolveDependencies(checks, options.dependencies),
    processors: readOverrides(checks, options.processors),
    retention: resolveRetention(checks, options.retention, DEFAULT_RETENTION),
    resolveTenant: options.tenants?.resolve,
    enqueue: {
      maxPayloadBytes: checks.count('enqueue.maxPayloadBytes', options.enqueue?.maxPayloadBytes, 1024 * 1024),
    },
    results: {
      maxBytes: checks.count('results.maxBytes', options.results?.maxBytes, DEFAULT_MAX_RESULT_BYTES),
    },
    encryption: readKeyRing(checks, options.encryption),
    signing: readSigning(checks, options.signing),
    dispatch: {
      enabled: checks.flag('dispatch.enabled', options.dispatch?.enabled, true),
      pollMs: checks.timer('dispatch.pollMs', options.dispatch?.pollMs, 1000),
      redispatchAfterMs: checks.positive(
        'dispatch.redispatchAfterMs',
        options.dispatch?.redispatchAfterMs,
        15 * 60 * 1000,
      ),
      redispatchMaxMs: checks.positive(
        'dispatch.redispatchMaxMs',
        options.dispatch?.redispatchMaxMs,
        6 * 60 * 60 * 1000,
      ),
    },
    sweepMs: checks.timer('recovery.sweepMs', options.recovery?.sweepMs, 30_000),
    pruneMs: checks.timer('recovery.pruneMs', options.recovery?.pruneMs, 60 * 60 * 1000),
    editedRedrive: checks.flag('deadLetters.editedRedrive', options.deadLetters?.editedRedrive, false),
    shutdown: {
      drainMs: checks.timer('shutdown.drainMs', options.shutdown?.drainMs, 20_000, 0),
      closeMs: checks.timer('shutdown.closeMs', options.shutdown?.closeMs, 5_000, 0),
    },
    logs: checks.oneOf('logs', options.logs, ['all', 'problems', 'none'], 'all'),
    metrics: metricsAdapters(checks, options.metrics),
    doctor: checks.oneOf('doctor', options.doctor, ['warn', 'fail', 'off'], 'warn'),
    traceContext: options.traceContext ?? carrierOf(options.tracing),
    tracing: options.tracing,
  };
  checks.callback('tenants.resolve', options.tenants?.resolve);
  checks.callback('traceContext', options.traceContext);
  if (options.tracing !== undefined && !isTracing(options.tracing))
    checks.fail(
      'tracing',
      options.tracing,
      'otelTracing(), or something else with carrier, detached and span',
    );
  if (options.tracing !== undefined && options.traceContext !== undefined)
    checks.problem(
      'tracing and traceContext are both given, and tracing hands on its own context: remove traceContext, and put what it handed on besides into the baggage or the payload',
    );
  if (options.schema !== undefined && (typeof options.schema !== 'string' || options.schema.length === 0)) {
    checks.fail('schema', options.schema, 'the name of a Postgres schema');
  }
  checks.throwIfAny((message) => new ConfigurationError(message));
  return resolved;
}

function resolvePool(
  checks: OptionChecks,
  { max, connection = {} }: NonNullable<IdempotentJobsOptions['pool']> = {},
): LedgerPoolOptions {
  const size = checks.count('pool.max', max, DEFAULT_POOL.max);
  if (max !== undefined && size < MIN_CONNECTIONS)
    checks.fail(
      'pool.max',
      max,
      `at least ${MIN_CONNECTIONS}: leases, records, claims and everything else need one each`,
    );
  if (connection === null || typeof connection !== 'object')
    checks.fail('pool.connection', connection, 'an object with options of pg, such as { host, port }');
  return { max: size, connection };
}

function isTracing(tracing: Partial<Tracing> | null): boolean {
  return [tracing?.carrier, tracing?.detached, tracing?.span].every((method) => typeof method === 'function');
}

function carrierOf(tracing: Tracing | undefined): (() => unknown) | undefined {
  return tracing && (() => tracing.carrier());
}

function metricsAdapters(
  checks: OptionChecks,
  adapters: IdempotentJobsOptions['metrics'] = [],
): readonly MetricsAdapter[] {
  if (Array.isArray(adapters) && adapters.every((adapter) => typeof adapter?.open === 'function'))
    return adapters;
  checks.problem(
    'metrics must be a list of adapters: [prometheusMetrics({ registry })] of nestjs-idempotent-jobs/prometheus, [otelMetrics()] of nestjs-idempotent-jobs/otel, or your own',
  );
  return [];
}
