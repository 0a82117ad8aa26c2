import type { QueueDepth } from '../../bullmq/queue-contents.js';
import { DEAD_LETTER_REASONS } from '../../operation/reasons.js';
import type { CircuitState } from '../../resilience/circuit-state.js';
import { CachedReading } from './cached-reading.js';
import { type GaugeMetric, JOB_METRICS as METRICS } from './catalogue.js';
import type { LedgerGaugesRow } from './ledger-gauges.statement.js';
import type { GaugeReading, Labels } from './metrics.port.js';

/** A dependency and the state of its circuit. */
export interface DependencyCircuit {
  readonly name: string;
  readonly circuit: CircuitState['kind'];
}

/** What the gauges are read from; each source may be slow, and may fail. */
export interface GaugeSources {
  /** The queues of this application. */
  queues(): readonly string[];
  depthOf(queue: string): Promise<QueueDepth>;
  /** Undefined when no job waits. */
  oldestWaitingMsOf(queue: string): Promise<number | undefined>;
  ledger(): Promise<readonly LedgerGaugesRow[]>;
  dependencies(): readonly DependencyCircuit[];
}

/**
 * Reads the gauges for scrapes. The ledger and each queue are read in parallel and fail independently: when a Redis is
 * gone, only the depths of its queues are missing.
 */
export class GaugeReader {
  readonly #ledger: CachedReading<readonly GaugeReading[]>;
  readonly #queues = new Map<string, CachedReading<readonly GaugeReading[]>>();

  constructor(
    private readonly sources: GaugeSources,
    private readonly now?: () => number,
  ) {
    this.#ledger = new CachedReading(
      async () => ledgerReadings(await sources.ledger(), sources.queues()),
      now,
    );
  }

  /** Keeps the promises of {@link ReadGauges}. */
  async read(): Promise<readonly GaugeReading[]> {
    const readings = await Promise.all([
      this.#ledger.get(),
      ...this.sources.queues().map((queue) => this.#queue(queue).get()),
    ]);
    return [...readings.flatMap((reading) => reading ?? []), ...circuitReadings(this.sources.dependencies())];
  }

  #queue(name: string): CachedReading<readonly GaugeReading[]> {
    let reading = this.#queues.get(name);
    if (reading === undefined) {
      reading = new CachedReading(() => this.#readQueue(name), this.now);
      this.#queues.set(name, reading);
    }
    return reading;
  }

  async #readQueue(queue: string): Promise<readonly GaugeReading[]> {
    const [depth, oldestMs = 0] = await Promise.all([
      this.sources.depthOf(queue),
      this.sources.oldestWaitingMsOf(queue),
    ]);
    const { waiting, active, delayed, failed } = depth;
    return [
      ...Object.entries({ waiting, active, delayed, failed }).map(([state, jobs]) =>
        reading(METRICS.queueDepth, { queue, state }, jobs),
      ),
      reading(METRICS.queueOldestAge, { queue }, oldestMs / 1000),
    ];
  }
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

const CIRCUIT_VALUES: Readonly<Record<CircuitState['kind'], number>> = {
  closed: 0,
  forced_closed: 0,
  half_open: 1,
  open: 2,
  forced_open: 2,
};

function circuitReadings(dependencies: readonly DependencyCircuit[]): GaugeReading[] {
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
