import { Injectable } from '@nestjs/common';
import { messageOf } from '../../operation/thrown.js';
import { HealthIndicatorService, type HealthIndicatorResult } from '@nestjs/terminus';
import { Dependencies } from '../../resilience/dependency/dependencies.js';
import { QueueRegistry } from '../../producer/queue-registry.js';
import { WorkerLifecycle } from '../../worker/host/worker.lifecycle.js';
import { Database } from '../../ledger/postgres/database.js';
import { schemaVersion } from '../../ledger/postgres/schema-guard.js';
import { SCHEMA_VERSION } from '../../ledger/postgres/migrations.js';
import { within } from '../../operation/within.js';
import { UNDISPATCHED_SINCE } from '../../ledger/undispatched-since.js';
import { statement } from '../../ledger/postgres/statement.js';

/** Counts a queue's open letters and operations in doubt, each up to a limit. */
const QUEUE_STATE = statement(
  'queue_state',
  `
SELECT
  (SELECT count(*) FROM (
     SELECT FROM {schema}.dead_letters WHERE queue = :queue AND resolved_at IS NULL LIMIT :limit) AS open)::integer AS dead_letters,
  (SELECT count(*) FROM (
     SELECT FROM {schema}.job_outcomes WHERE queue = :queue AND status = 'in_doubt' LIMIT :limit) AS doubted)::integer AS in_doubt
`,
);

/**
 * How long the longest waiting operation or letter that was never put on its queue has been waiting, in ms. Null when
 * none waits. Counted from when it could first have been put there, not from its due time, which every attempt moves.
 */
const DISPATCH_LAG = statement(
  'dispatch_lag',
  `
SELECT GREATEST(
  (SELECT EXTRACT(EPOCH FROM clock_timestamp() - min(${UNDISPATCHED_SINCE})) FROM {schema}.job_outcomes o
   WHERE dispatch_due_at IS NOT NULL AND dispatches = 0),
  (SELECT EXTRACT(EPOCH FROM clock_timestamp() - min(created_at)) FROM {schema}.dead_letters
   WHERE dispatch_due_at IS NOT NULL AND dispatches = 0)
)::float8 * 1000 AS lag_ms
`,
);

/** The limits beyond which {@link IdempotentJobsHealthIndicator.ledger} reports the ledger as impaired. */
export interface LedgerThresholds {
  /** `degraded` when an operation or letter has been due for its queue for longer, in ms. Default 60,000. */
  readonly maxDispatchLagMs?: number;
  /** `down` when Postgres does not answer in this time, in ms. Default 2,000. */
  readonly timeoutMs?: number;
}

/** The limits beyond which {@link IdempotentJobsHealthIndicator.queue} reports a queue as impaired. */
export interface QueueThresholds {
  /** `degraded` when a job has been waiting for longer, in ms. Default 60,000. */
  readonly maxWaitMs?: number;
  /** `degraded` when more dead letters are open. Default 0. */
  readonly maxDeadLetters?: number;
  /** `degraded` when more operations are in doubt. Default 0. */
  readonly maxInDoubt?: number;
  /** `down` when the queue's backend or Postgres does not answer in this time, in ms. Default 2,000. */
  readonly timeoutMs?: number;
}

/**
 * Health for @nestjs/terminus. `down`: jobs do not run. `degraded`, which stays HTTP 200: they do, but the operator should
 * look. With @nestjs/terminus 11, which does not know `degraded`, the status is `up` then, with the same message.
 *
 * ```ts
 * health.check([() => jobs.ledger(), () => jobs.queue('charges', { maxDeadLetters: 10 })]);
 * ```
 */
@Injectable()
export class IdempotentJobsHealthIndicator {
  readonly #health = new HealthIndicatorService();

  /** @internal Injected. */
  constructor(
    private readonly database: Database,
    private readonly queues: QueueRegistry,
    private readonly dependencies: Dependencies,
    private readonly workers: WorkerLifecycle,
  ) {}

  /** Reports whether the ledger is reachable and migrated, and whether due operations get to their queues. */
  async ledger({
    maxDispatchLagMs = 60_000,
    timeoutMs = 2000,
  }: LedgerThresholds = {}): Promise<HealthIndicatorResult> {
    const session = this.#health.check('ledger');
    try {
      const { database } = this;
      const [version, [lag]] = await answered(
        timeoutMs,
        'the ledger',
        Promise.all([
          schemaVersion(database),
          database.read<{ lagMs: number | undefined }>(DISPATCH_LAG.with({})),
        ]),
      );
      const facts = { schemaVersion: version ?? null, dispatchLagMs: Math.round(lag?.lagMs ?? 0) };
      if (version !== SCHEMA_VERSION)
        return session.down({ ...facts, message: `the schema is not at version ${SCHEMA_VERSION}` });
      return withConcerns(session, facts, [
        facts.dispatchLagMs > maxDispatchLagMs &&
          `operations have been due for dispatch for more than ${maxDispatchLagMs} ms`,
      ]);
    } catch (error) {
      return session.down({ message: messageOf(error) });
    }
  }

  /** Reports whether the queue's backend is reachable, its worker runs, and little waits for a worker or the operator. */
  async queue(
    name: string,
    { maxWaitMs = 60_000, maxDeadLetters = 0, maxInDoubt = 0, timeoutMs = 2000 }: QueueThresholds = {},
  ): Promise<HealthIndicatorResult> {
    const session = this.#health.check(name);
    const port = this.queues.portOf(name);
    if (port === undefined) return session.down({ message: `queue "${name}" is not registered` });
    try {
      const [oldestWaitingMs, [state]] = await answered(
        timeoutMs,
        `queue "${name}"`,
        Promise.all([
          port.contents.oldestWaitingMs(),
          this.database.read<{ deadLetters: number; inDoubt: number }>(
            QUEUE_STATE.with({ queue: name, limit: COUNT_LIMIT }),
          ),
          port.ping(),
        ]),
      );
      const worker = this.#worker(name);
      const { deadLetters = 0, inDoubt = 0 } = state ?? {};
      const facts = {
        backend: port.backend,
        worker,
        oldestWaitingMs: oldestWaitingMs ?? 0,
        deadLetters,
        inDoubt,
      };
      if (worker === 'stopped')
        return session.down({ ...facts, message: 'the worker of this process does not run' });
      return withConcerns(session, facts, [
        facts.oldestWaitingMs > maxWaitMs && `a job has been waiting for more than ${maxWaitMs} ms`,
        deadLetters > maxDeadLetters && `more than ${maxDeadLetters} dead letters are open`,
        inDoubt > maxInDoubt && `more than ${maxInDoubt} operations are in doubt`,
      ]);
    } catch (error) {
      return session.down({ message: messageOf(error) });
    }
  }

  /**
   * Reports whether this process gets through to a dependency. An open circuit is `degraded`, never `down`: jobs wait,
   * and a restart would only lose what is known. Use it in a probe of its own; in a liveness probe it would restart all
   * workers at once.
   */
  dependency(name: string): HealthIndicatorResult {
    const session = this.#health.check(name);
    const dependency = this.dependencies.find(name);
    if (dependency === undefined) return session.down({ message: `dependency "${name}" is not declared` });
    const { circuit, retryAfterMs, active, isBudgetSpent, keys } = dependency.state;
    const facts = { circuit, retryAfterMs: Math.round(retryAfterMs), active, isBudgetSpent, keys };
    const ofKeys =
      keys === undefined ? '' : `, as the worst of ${keys.known} (${keys.notClosed} are not closed)`;
    const isClosed = circuit === 'closed' || circuit === 'forced_closed';
    return withConcerns(session, facts, [
      !isClosed && `its circuit is ${circuit}${ofKeys}`,
      isBudgetSpent && 'retries are denied: they were too large a share of its calls',
    ]);
  }

  /** `none`: this process only enqueues, and another one runs the jobs. */
  #worker(queue: string): 'running' | 'stopped' | 'none' {
    const processors = this.workers.running.filter(({ rules }) => rules.queue === queue);
    if (processors.length === 0) return 'none';
    return processors.every(({ worker }) => worker.isRunning()) ? 'running' : 'stopped';
  }
}

/** Enough to tell "many"; an exact count would be the slowest query when there are too many. */
const COUNT_LIMIT = 1000;

/** Up, or degraded for what the operator should look at. */
function withConcerns(
  session: Session,
  facts: Record<string, unknown>,
  found: readonly (string | false)[],
): HealthIndicatorResult {
  const concerns = found.filter((concern) => concern !== false);
  if (concerns.length === 0) return session.up(facts);
  const told = { ...facts, message: concerns.join('; ') };
  return 'degraded' in session ? session.degraded(told) : (session as SessionOfTerminus11).up(told);
}

type Session = ReturnType<HealthIndicatorService['check']>;

/** Terminus 11 has no word between up and down. */
type SessionOfTerminus11 = Pick<Session, 'up'>;

function answered<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  return within(ms, work, () => new Error(`${what} did not answer within ${ms} ms`));
}
