import { type CounterMetric, type GaugeMetric, type HistogramMetric, JOB_METRICS } from './catalogue.js';
import type { CounterSeries, HistogramSeries, Labels, OpenMetrics } from './metrics.port.js';

type Catalogue = typeof JOB_METRICS;
type Counted = (CounterMetric | HistogramMetric) & {
  readonly values: Readonly<Record<string, readonly string[]>>;
};
/** The keys of the metrics that are counted from events. */
type Key = { [K in keyof Catalogue]: Catalogue[K] extends Counted ? K : never }[keyof Catalogue];

/** A value of a metric's label: a word of its closed list, or any text. */
export type WordOf<K extends Key, Label> =
  Catalogue[K]['values'] extends Record<Label & string, readonly (infer Word)[]> ? Word : string;

type WordsOf<K extends Key, L extends readonly string[]> = { [I in keyof L]: WordOf<K, L[I]> };

/** The series of a metric, by the values of its labels in their order. */
interface SeriesOf<K extends Key> extends Pick<Series<unknown>, 'begin'> {
  at(
    ...values: WordsOf<K, Catalogue[K]['labels']>
  ): Catalogue[K]['kind'] extends 'counter' ? CounterSeries : HistogramSeries;
}

/** The series of each counter and histogram of the catalogue. */
export type AllSeries = { readonly [K in Key]: SeriesOf<K> };

export function allSeries(metrics: OpenMetrics): AllSeries {
  const all = Object.entries<Counted | GaugeMetric>(JOB_METRICS).flatMap(([key, metric]) => {
    if (metric.kind === 'gauge') return [];
    const make = (labels: Labels): CounterSeries | HistogramSeries =>
      metric.kind === 'counter' ? metrics.counter(metric, labels) : metrics.histogram(metric, labels);
    return [[key, new Series(metric, make)]];
  });
  return Object.fromEntries(all) as AllSeries;
}

/** The series below one value of a label, by the values of the next one. */
class Branch<S> {
  readonly #branches = new Map<string, Branch<S>>();
  /** Set where all labels have a value. */
  series: S | undefined;

  to(value: string): Branch<S> {
    let branch = this.#branches.get(value);
    if (branch === undefined) {
      branch = new Branch();
      this.#branches.set(value, branch);
    }
    return branch;
  }
}

/** The series of one metric. Each is made, at 0, at its first use; from then on a look-up allocates nothing. */
class Series<S> {
  readonly #root = new Branch<S>();

  constructor(
    private readonly metric: Counted,
    private readonly make: (labels: Labels) => S,
  ) {}

  at(first: string, second?: string, third?: string, fourth?: string): S {
    let branch = this.#root.to(first);
    if (second !== undefined) branch = branch.to(second);
    if (third !== undefined) branch = branch.to(third);
    if (fourth !== undefined) branch = branch.to(fourth);
    return (branch.series ??= this.#made([first, second, third, fourth]));
  }

  /** Makes all series with these first labels, provided that the labels after them have closed lists. */
  begin(first: Labels): void {
    const isPrefix = Object.keys(first).every((label, place) => label === this.metric.labels[place]);
    if (isPrefix) this.#beginAll(Object.values(first));
  }

  #beginAll(values: readonly string[]): void {
    const label = this.metric.labels[values.length];
    if (label === undefined) this.at(...(values as [string]));
    else for (const word of this.metric.values[label] ?? []) this.#beginAll([...values, word]);
  }

  #made(values: readonly (string | undefined)[]): S {
    return this.make(
      Object.fromEntries(this.metric.labels.map((label, place) => [label, values[place] ?? ''])),
    );
  }
}
