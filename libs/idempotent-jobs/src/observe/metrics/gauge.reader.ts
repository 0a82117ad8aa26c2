import { Injectable } from '@nestjs/common';
import { Database } from '../../ledger/postgres/database.js';
import { statement } from '../../ledger/postgres/statement.js';
import type { QueueDepth } from '../../bullmq/queue-contents.js';
import { type BundledOperations, inOperations, readBundled } from '../../bullmq/bundled-operations.js';
import { UNDISPATCHED_SINCE } from '../../ledger/undispatched-since.js';
import {
  DEAD_LETTER_REASONS,
  type CircuitStateName,
  type DeadLetterReason,
} from '../../operation/reasons.js';
import { QueueRegistry } from '../../producer/queue-registry.js';
import { Dependencies } from '../../resilience/dependency/dependencies.js';
import { CachedReading } from './cached-reading.js';
import { type GaugeMetric, JOB_METRICS as METRICS } from './catalogue.js';
import type { GaugeReading, Labels } from './metrics.port.js';

/** A row of {@link LEDGER_GAUGES}: how many there are, and how old the oldest is, in seconds. */
type LedgerGaugesRow =
  | ({ readonly what: 'letters'; readonly queue: string; readonly reason: DeadLetterReason } & Counted)
  | ({ readonly what: 'doubts'; readonly queue: string } & Counted)
  | ({ readonly what: 'undispatched' } & Counted);

interface Counted {
  readonly many: number;
  /** Null when there is none. */
  readonly oldest_age: number | null;
}

/**
 * Counts what waits for the operator or for its queue, over all queues that the ledger knows. Each part is read from a
 * partial index: operations that are settled or on their queue, however many, are not read. A redriven operation has been
 * waiting for its queue since its letter was closed. `undispatched` always has one row; queues without letters or doubts
 * have none.
 */
const LEDGER_GAUGES = statement(
  'ledger_gauges',
  `
WITH waiting AS (
  SELECT 'letters' AS what, queue, reason, created_at AS since
  FROM {schema}.dead_letters WHERE resolved_at IS NULL
  UNION ALL
  SELECT 'doubts', queue, NULL, doubt_since
  FROM {schema}.job_outcomes WHERE status = 'in_doubt'
), undispatched AS (
  SELECT ${UNDISPATCHED_SINCE} AS since FROM {schema}.job_outcomes o WHERE dispatch_due_at IS NOT NULL AND dispatches = 0
  UNION ALL
  SELECT created_at FROM {schema}.dead_letters WHERE dispatch_due_at IS NOT NULL AND dispatches = 0
)
SELECT what, queue, reason, count(*)::integer AS many,
  EXTRACT(EPOCH FROM clock_timestamp() - min(since))::float8 AS oldest_age
FROM waiting GROUP BY what, queue, reason
UNION ALL
SELECT 'undispatched', NULL, NULL, count(*)::integer, EXTRACT(EPOCH FROM clock_timestamp() - min(since))::float8
FROM undispatched
`,
);

/**
 * Reads the gauges for scrapes. The ledger and each queue are read in parallel and fail independently: when a Redis is
 * gone, only the depths of its queues are missing.
 */
@Injectable()
export class GaugeReader {
  readonly #ledger: CachedReading<readonly GaugeReading[]>;
  readonly #bundled: CachedReading<ReadonlyMap<string, BundledOperations>>;
  readonly #queues = new Map<string, CachedReading<QueueState>>();

  constructor(
    database: Database,
    private readonly queues: QueueRegistry,
    private readonly dependencies: Dependencies,
  ) {
    this.#ledger = new CachedReading(async () =>
      ledgerReadings(await database.run(LEDGER_GAUGES.with({})), queues.names),
    );
    this.#bundled = new CachedReading(() => readBundled(database, queues.names));
  }

  /** Keeps the promises of {@link ReadGauges}. */
  async read(): Promise<readonly GaugeReading[]> {
    const { names } = this.queues;
    const hasBundles = names.some((queue) => this.queues.bundlesOf(queue) !== undefined);
    const [ledger = [], bundled, ...queues] = await Promise.all([
      this.#ledger.get(),
      // Without the ledger, bundles count as the jobs that they are.
      hasBundles ? this.#bundled.get() : undefined,
      ...names.map((queue) => this.#queue(queue).get()),
    ]);
    return [
      ...ledger,
      ...names.flatMap((queue, index) => queueReadings(queue, queues[index], bundled?.get(queue))),
      ...circuitReadings(this.dependencies.states),
    ];
  }

  #queue(name: string): CachedReading<QueueState> {
    let reading = this.#queues.get(name);
    if (reading === undefined) {
      reading = new CachedReading(() => this.#readQueue(name));
      this.#queues.set(name, reading);
    }
    return reading;
  }

  async #readQueue(queue: string): Promise<QueueState> {
    const contents = this.queues.contentsOf(queue);
    const [depth, oldestMs = 0] = await Promise.all([contents.depth(), contents.oldestWaitingMs()]);
    return { depth, oldestMs };
  }
}

/** What BullMQ says of a queue. */
interface QueueState {
  readonly depth: QueueDepth;
  readonly oldestMs: number;
}

/** None for a queue that could not be read. */
function queueReadings(
  queue: string,
  found: QueueState | undefined,
  bundled: BundledOperations | undefined,
): GaugeReading[] {
  if (found === undefined) return [];
  const { waiting, active, delayed, failed } = inOperations(found.depth, bundled);
  return [
    ...Object.entries({ waiting, active, delayed, failed }).map(([state, jobs]) =>
      reading(METRICS.queueDepth, { queue, state }, jobs),
    ),
    reading(METRICS.queueOldestAge, { queue }, found.oldestMs / 1000),
  ];
}

/** The application's own queues have all readings, 0 included; other queues only those that have a value. */
function ledgerReadings(
  rows: readonly LedgerGaugesRow[],
  queues: readonly string[],
): readonly GaugeReading[] {
  const letters = new Map(queues.map((queue) => [queue, new Letters()]));
  const doubts = new Map(queues.map((queue) => [queue, { many: 0, oldestAge: 0 }]));
  const readings: GaugeReading[] = [];
  for (const row of rows) {
    const oldestAge = Math.max(0, row.oldest_age ?? 0);
    if (row.what === 'undispatched') {
      readings.push(reading(METRICS.dispatchPending, {}, row.many));
      readings.push(reading(METRICS.dispatchOldestAge, {}, oldestAge));
    } else if (row.what === 'doubts') {
      doubts.set(row.queue, { many: row.many, oldestAge });
    } else {
      const ofQueue = letters.get(row.queue) ?? new Letters();
      ofQueue.open.set(row.reason, row.many);
      ofQueue.oldestAge = Math.max(ofQueue.oldestAge, oldestAge);
      letters.set(row.queue, ofQueue);
    }
  }
  for (const [queue, { open, oldestAge }] of letters) {
    for (const [reason, many] of open) readings.push(reading(METRICS.openLetters, { queue, reason }, many));
    readings.push(reading(METRICS.oldestLetterAge, { queue }, oldestAge));
  }
  for (const [queue, { many, oldestAge }] of doubts) {
    readings.push(reading(METRICS.inDoubt, { queue }, many));
    readings.push(reading(METRICS.oldestDoubtAge, { queue }, oldestAge));
  }
  return readings;
}

/** The open letters of a queue. */
class Letters {
  readonly open = new Map<string, number>(DEAD_LETTER_REASONS.map((reason) => [reason, 0]));
  oldestAge = 0;
}

const CIRCUIT_VALUES: Readonly<Record<CircuitStateName, number>> = {
  closed: 0,
  forced_closed: 0,
  half_open: 1,
  open: 2,
  forced_open: 2,
};

function circuitReadings(dependencies: Dependencies['states']): GaugeReading[] {
  return dependencies.map(({ name, circuit }) =>
    reading(METRICS.circuitState, { dependency: name }, CIRCUIT_VALUES[circuit]),
  );
}

function reading<L extends string>(
  metric: GaugeMetric<L>,
  labels: Labels<NoInfer<L>>,
  value: number,
): GaugeReading {
  return { metric, labels, value };
}
