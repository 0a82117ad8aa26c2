import { Injectable, type INestApplicationContext } from '@nestjs/common';
import { PermanentError, TransientError } from 'nestjs-idempotent-jobs';
import { DeadLetterService, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { JOB_METRICS, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, settled } from '../support/ledger.js';
import { opsMetrics } from '../ops/ops-metrics.js';
import { parseScrape, type Scrape } from '../support/parse-scrape.js';
import { EXPORTED, HISTOGRAMS } from '../ops/pinned-metrics.js';
import { processorOf } from '../support/processors.js';
import type { LabelMatcher } from '../ops/promql.js';
import { ANY_BACKEND, makePlace } from '../support/scenario.js';
import { startApp } from '../support/start-app.js';

/** A series of a scrape, read. */
interface Series {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

function readSeries(key: string): Series {
  const [name = '', labels = ''] = key.split(/[{}]/);
  return {
    name,
    labels: Object.fromEntries(
      [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) => [label, value]),
    ),
  };
}

/** What a matcher asks for, one by one: each of the alternatives of a list. Variables of Grafana stand for anything. */
function askedFor({ operator, value }: LabelMatcher): ((found: string | undefined) => boolean)[] {
  if (value.startsWith('$')) return [(found) => found !== undefined];
  switch (operator) {
    case '=':
      return [(found) => found === value];
    case '=~':
      return value.split('|').map((one) => (found) => found === one);
    case '!=':
      return [(found) => found !== undefined && found !== value];
    case '!~':
      return [(found) => found !== undefined && !value.split('|').includes(found)];
    default:
      return operator satisfies never;
  }
}

/** Each combination of one thing that each matcher asks for. */
function selections(matchers: readonly LabelMatcher[]): ((labels: Series['labels']) => boolean)[] {
  return matchers.reduce<((labels: Series['labels']) => boolean)[]>(
    (before, matcher) =>
      before.flatMap((passes) =>
        askedFor(matcher).map((fits) => (labels) => passes(labels) && fits(labels[matcher.label])),
      ),
    [() => true],
  );
}

describe('what alert rules and dashboards ask of a real application', () => {
  let app: INestApplicationContext;
  let scrape: Scrape;
  let series: readonly Series[];

  beforeAll(async () => {
    const registry = new Registry();
    const charges = processorOf(
      'charges',
      { effect: 'keyed', dependency: 'gateway', retry: { attempts: 2, backoff: { baseMs: 10, capMs: 20 } } },
      (job, { attempt }) => {
        if (job.name === 'flaky' && attempt === 1) throw new TransientError('refused');
        if (job.name === 'doomed') throw new PermanentError('no such card');
      },
    );
    const mails = processorOf('mails', {}, () => {
      throw new Error('no answer');
    });
    @Injectable()
    class Alerts {
      @OnDeadLetter()
      hear(): void {}
    }
    app = await startApp(await makePlace(ANY_BACKEND), {
      queues: ['charges', 'mails'],
      providers: [charges, mails, Alerts],
      jobs: {
        metrics: [prometheusMetrics({ registry })],
        dependencies: { gateway: { breaker: { openMs: 200 } } },
      },
    });
    let held = 0;
    app.get(JobEvents).subscribe(({ kind }) => (held += kind === 'deferred' ? 1 : 0));
    app.get(DependencyGuard).forceOpen('gateway');
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => held,
      (times) => expect(times).toBeGreaterThan(0),
    );
    app.get(DependencyGuard).resetCircuit('gateway');
    await enqueue(app, 'charges', 'flaky', {}, 'charge:2');
    await enqueue(app, 'charges', 'doomed', {}, 'charge:3');
    await enqueue(app, 'mails', 'mail', {}, 'mail:1');
    for (const key of ['charge:1', 'charge:2', 'charge:3', 'mail:1']) await settled(app, key);
    await app
      .get(DeadLetterService)
      .redrive({ tenantId: 'acme', operationKey: 'charge:3' }, { actor: 'ada', note: 'once more' });
    await bullQueue(app, 'charges-dlq').add('dead-letter', { letterId: 'none' });
    scrape = await eventually(
      async () => parseScrape(await registry.metrics()),
      ({ series: all }) =>
        expect(all).toMatchObject({
          'jobs_processed_total{job="doomed",queue="charges",result="dead"}': 2,
          'jobs_processed_total{job="mail",queue="mails",result="in_doubt"}': 1,
          'dead_letter_messages_dropped_total{queue="charges-dlq",reason="malformed"}': 1,
        }),
    );
    series = Object.keys(scrape.series).map(readSeries);
  });
  afterAll(() => app.close());

  it('is there: each series, with each value that they select by and all labels that they group by', () => {
    const missing = opsMetrics().flatMap(({ file, series: name, matchers, groupedBy, expression }) => {
      const named = series.filter((one) => one.name === name);
      const grouped = named.filter(({ labels }) => groupedBy.every((label) => label in labels));
      return selections(matchers).every((passes) => grouped.some(({ labels }) => passes(labels)))
        ? []
        : [{ file, name, matchers, groupedBy, expression }];
    });
    expect(missing).toEqual([]);
  });

  it('is of the kind that its name promises', () => {
    for (const { name } of opsMetrics())
      expect({ name, type: scrape.types[name] }).toEqual({
        name,
        type: name.endsWith('_total') ? 'counter' : HISTOGRAMS.includes(name) ? 'histogram' : 'gauge',
      });
  });

  it('has no values but those that rules and dashboards are checked against', () => {
    const strange = series.flatMap(({ name, labels }) => {
      const pinned = EXPORTED[name.replace(/_(?:bucket|sum|count)$/, '')] ?? {};
      return Object.entries(labels).filter(([label, value]) => pinned[label]?.includes(value) === false);
    });
    expect(strange).toEqual([]);
  });

  it('is what the package says that it exports, by name, kind and label', () => {
    const catalogue = Object.values(JOB_METRICS).map(({ name, kind, labels }) => [
      name,
      [...labels, ...(kind === 'histogram' ? ['le'] : [])].toSorted(),
    ]);
    const pinned = Object.entries(EXPORTED).map(([name, labels]) => [name, Object.keys(labels).toSorted()]);
    expect(Object.fromEntries(pinned)).toEqual(Object.fromEntries(catalogue));
  });
});
