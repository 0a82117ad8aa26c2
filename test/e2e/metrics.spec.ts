import { getQueueToken } from '@nestjs/bullmq';
import type { INestApplicationContext } from '@nestjs/common';
import type { Queue } from 'bullmq';
import { PermanentError, TransientError } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { IdempotentJobsHealthIndicator, JOB_METRICS } from 'nestjs-idempotent-jobs/observe';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { parseScrape, type Scrape } from '../support/parse-scrape.js';
import { identifyPlain, processorOf } from '../support/processors.js';
import { detourOf } from '../support/quiet-line.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

class Charge {}

const metricsIn = (registry: Registry) => ({ metrics: [prometheusMetrics({ registry })] });

const scrape = async (registry: Registry): Promise<Scrape['series']> =>
  parseScrape(await registry.metrics()).series;

/** What is shown of a metric, without its name. */
function shown(series: Scrape['series'], { name }: { name: string }): Record<string, number> {
  return Object.fromEntries(
    Object.entries(series).flatMap(([key, value]) =>
      key === name || key.startsWith(`${name}{`) ? [[key.slice(name.length), value]] : [],
    ),
  );
}

const countsOf = (app: INestApplicationContext, queue: string): Promise<Record<string, number>> =>
  app.get<Queue>(getQueueToken(queue)).getJobCounts();

describe.each(BACKENDS)('metrics, on %s', (backend) => {
  const apps = useApps();

  it('have no label of a stranger’s making: names of jobs that are refused count as "other"', async () => {
    const registry = new Registry();
    const charges = processorOf(
      'charges',
      { effect: 'keyed', payload: { charge: Charge }, identify: identifyPlain },
      () => 'charged',
    );
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [charges],
      jobs: metricsIn(registry),
    });
    const queue = bullQueue(app, 'charges');
    const names = Array.from({ length: 30 }, (_, index) => `stranger ${index} ${'x'.repeat(20_000)}`);
    await queue.addBulk(names.map((name) => ({ name, data: { tenant: 'acme', key: name.slice(0, 20) } })));
    await queue.addBulk(
      names.map((name) => ({ name: name.slice(0, 200), data: { tenant: 'acme', key: name.slice(0, 20) } })),
    );
    await queue.add('nobody knows whose', {});
    await deliver(app, 'charges', 'charge:1');
    await settled(app, 'charge:1');
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toHaveLength(61),
    );
    const text = await registry.metrics();
    expect(text).not.toMatch(/stranger|knows whose/);
    expect(text.length).toBeLessThan(200_000);
    expect(shown(parseScrape(text).series, JOB_METRICS.processed)).toMatchObject({
      '{job="other",queue="charges",result="dead"}': 61,
      '{job="charge",queue="charges",result="completed"}': 1,
    });
  });

  it('count success, retries, deaths, replays, doubts and what people do about them, and tell nobody’s secrets', async () => {
    const registry = new Registry();
    const charges = processorOf(
      'charges',
      { effect: 'keyed', retry: QUICK, identify: identifyPlain },
      (job, { attempt }) => {
        if (job.name === 'flaky' && attempt < 3) throw new TransientError('card 4242 is shy');
        if (job.name === 'doomed') throw new TransientError('card 4242 is stolen');
        return 'secret result';
      },
    );
    const mails = processorOf('mails', {}, () => {
      throw new Error('no answer for ada@acme.test');
    });
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'mails'],
      providers: [charges, mails],
      jobs: metricsIn(registry),
    });
    await deliver(app, 'charges', 'charge:plain');
    await settled(app, 'charge:plain');
    await deliver(app, 'charges', 'charge:plain');
    await enqueue(app, 'charges', 'flaky', { card: '4242' }, 'charge:flaky');
    await enqueue(app, 'charges', 'flaky', { card: '4242' }, 'charge:flaky');
    await enqueue(app, 'charges', 'doomed', { card: '4242' }, 'charge:doomed');
    await enqueue(app, 'mails', 'mail', { to: 'ada@acme.test' }, 'mail:1');
    for (const key of ['charge:flaky', 'charge:doomed', 'mail:1']) await settled(app, key);
    const [letter] = (await lettersOf(app)).filter(({ queue }) => queue === 'charges');
    await app.get(DeadLetterService).redrive(letter?.id as string, { actor: 'ada', note: 'once more' });

    const series = await eventually(
      () => scrape(registry),
      (all) =>
        expect(all).toMatchObject({
          'jobs_processed_total{job="doomed",queue="charges",result="dead"}': 2,
          'idempotency_key_reused_total{job="charge",kind="replayed",queue="charges"}': 1,
        }),
    );
    expect(series).toMatchObject({
      'jobs_processed_total{job="charge",queue="charges",result="completed"}': 1,
      'jobs_processed_total{job="charge",queue="charges",result="replayed"}': 1,
      'jobs_processed_total{job="flaky",queue="charges",result="retrying"}': 2,
      'jobs_processed_total{job="flaky",queue="charges",result="completed"}': 1,
      'jobs_processed_total{job="mail",queue="mails",result="in_doubt"}': 1,
      'job_attempts_started_total{job="flaky",kind="first",queue="charges"}': 1,
      'job_attempts_started_total{job="flaky",kind="retry",queue="charges"}': 2,
      'idempotency_key_reused_total{job="flaky",kind="duplicate",queue="charges"}': 1,
      'retry_exhausted_total{job="doomed",queue="charges",reason="retries_exhausted"}': 2,
      'dead_letter_messages_total{queue="charges",reason="retries_exhausted"}': 2,
      'dead_letter_messages_total{queue="mails",reason="in_doubt"}': 1,
      'dead_letter_redriven_total{queue="charges",result="redriven"}': 1,
      'job_retry_count_bucket{job="flaky",le="1",queue="charges"}': 0,
      'job_retry_count_bucket{job="flaky",le="2",queue="charges"}': 1,
      'job_duration_seconds_count{job="flaky",queue="charges"}': 3,
      'job_wait_seconds_count{job="flaky",queue="charges"}': 1,
      'job_end_to_end_seconds_count{job="flaky",queue="charges"}': 1,
    });
    const retries = shown(series, JOB_METRICS.retryAttempts);
    expect(Object.values(retries).reduce((sum, value) => sum + value, 0)).toBe(6);
    // Ages and sums may hold any digits.
    expect(Object.keys(series).join('\n')).not.toMatch(
      /acme|4242|shy|stolen|secret|charge:|mail:1|ada|once more|op-/,
    );
  });

  it('show what waits, is open, is in doubt and was never on a queue', async () => {
    const registry = new Registry();
    const charges = processorOf('charges', { effect: 'keyed', identify: identifyPlain }, () => {
      throw new PermanentError('no');
    });
    const mails = processorOf('mails', { identify: identifyPlain }, () => {
      throw new Error('no answer');
    });
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'mails', 'stock', 'paused'],
      providers: [charges, mails],
      jobs: { ...metricsIn(registry), dispatch: { enabled: false } },
    });
    await deliver(app, 'charges', 'charge:1');
    await deliver(app, 'mails', 'mail:1');
    await bullQueue(app, 'stock').add('first', {}, { timestamp: Date.now() - 120_000 });
    await bullQueue(app, 'stock').add('second', {}, { priority: 3 });
    await bullQueue(app, 'stock').add('later', {}, { delay: 600_000 });
    await bullQueue(app, 'paused').pause();
    await bullQueue(app, 'paused').add('held', {});
    await enqueue(app, 'stock', 'reserve', {}, 'stock:1');
    await settled(app, 'charge:1');
    await settled(app, 'mail:1');
    for (const queue of ['charges', 'mails'])
      await eventually(
        () => countsOf(app, queue),
        (counts) => expect(counts).toMatchObject({ failed: 1, active: 0 }),
      );

    const series = await scrape(registry);
    expect(shown(series, JOB_METRICS.queueDepth)).toMatchObject({
      '{queue="stock",state="waiting"}': 2,
      '{queue="stock",state="delayed"}': 1,
      '{queue="paused",state="waiting"}': 1,
      '{queue="charges",state="failed"}': 1,
      '{queue="charges",state="active"}': 0,
    });
    expect(series['queue_oldest_message_age_seconds{queue="stock"}']).toBeGreaterThanOrEqual(119);
    expect(series['queue_oldest_message_age_seconds{queue="mails"}']).toBe(0);
    expect(series).toMatchObject({
      'dead_letter_open{queue="charges",reason="permanent_error"}': 1,
      'dead_letter_open{queue="charges",reason="in_doubt"}': 0,
      'dead_letter_open{queue="mails",reason="in_doubt"}': 1,
      'jobs_in_doubt{queue="mails"}': 1,
      'jobs_in_doubt{queue="charges"}': 0,
      // One operation and two letters.
      dispatch_pending: 3,
    });
    for (const age of [
      'dead_letter_oldest_age_seconds{queue="charges"}',
      'jobs_in_doubt_oldest_age_seconds{queue="mails"}',
      'dispatch_oldest_age_seconds',
    ]) {
      expect(series[age]).toBeGreaterThan(0);
      expect(series[age]).toBeLessThan(60);
    }
  });

  it('take an old operation that was redriven for as old as its redrive, and health does', async () => {
    const registry = new Registry();
    const charges = processorOf('charges', { effect: 'keyed', identify: identifyPlain }, () => {
      throw new PermanentError('no');
    });
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [charges],
      jobs: { ...metricsIn(registry), dispatch: { enabled: false } },
    });
    await deliver(app, 'charges', 'charge:1');
    await settled(app, 'charge:1');
    await dataSourceOf(app).query(`UPDATE job_outcomes SET created_at = created_at - interval '3 days'`);
    const [letter] = await lettersOf(app);
    await app.get(DeadLetterService).redrive(letter?.id as string, { actor: 'ada', note: 'once more' });
    const series = await scrape(registry);
    expect(series).toMatchObject({ dispatch_pending: 2 });
    expect(series['dispatch_oldest_age_seconds']).toBeLessThan(60);
    const { ledger } = await app.get(IdempotentJobsHealthIndicator).ledger();
    expect(ledger).toMatchObject({ status: 'up', dispatchLagMs: expect.toSatisfy((lag) => lag < 60_000) });
  });

  it('are there with 0 before the first job, for the jobs that a processor names', async () => {
    const registry = new Registry();
    const processor = processorOf(
      'charges',
      { effect: 'keyed', payload: { charge: Charge, refund: Charge } },
      () => 'done',
    );
    await apps.fresh(backend, { queues: ['charges'], providers: [processor], jobs: metricsIn(registry) });
    expect(await scrape(registry)).toMatchObject({
      'jobs_processed_total{job="charge",queue="charges",result="dead"}': 0,
      'job_duration_seconds_count{job="refund",queue="charges"}': 0,
      'dead_letter_messages_total{queue="charges",reason="crash_loop"}': 0,
      'dead_letter_open{queue="charges",reason="crash_loop"}': 0,
      'fence_rejected_total{queue="charges"}': 0,
      'queue_depth{queue="charges",state="waiting"}': 0,
      dispatch_pending: 0,
    });
  });

  it.each([
    ['ledger', [JOB_METRICS.openLetters, JOB_METRICS.inDoubt, JOB_METRICS.dispatchPending]],
    ['queue', [JOB_METRICS.queueDepth, JOB_METRICS.queueOldestAge]],
  ] as const)(
    'answer in time, and without gauges of the %s, while its server is silent; they come back with it',
    async (part, gauges) => {
      const registry = new Registry();
      const { place, line } = await detourOf(await makePlace(backend), part);
      const app = await apps.beside(place, { queues: ['charges'], jobs: metricsIn(registry) });
      try {
        line.silence();
        const askedAt = performance.now();
        const scraped = Promise.all([scrape(registry), scrape(registry)]);
        // A statement is given up after 10 s.
        const statement = outcomeOf(app, 'charge:1').catch(() => undefined);
        if (part === 'ledger') expect(await Promise.race([scraped, statement])).toBeDefined();
        const both = await scraped;
        const firstMs = performance.now() - askedAt;
        for (const series of both) {
          for (const gauge of gauges) expect(shown(series, gauge)).toEqual({});
          expect(series).toMatchObject({ 'fence_rejected_total{queue="charges"}': 0 });
          const others = part === 'ledger' ? JOB_METRICS.queueDepth : JOB_METRICS.dispatchPending;
          expect(Object.keys(shown(series, others)).length).toBeGreaterThan(0);
        }
        const again = async (): Promise<number> => {
          const againAt = performance.now();
          await scrape(registry);
          return performance.now() - againAt;
        };
        // It does not wait for the silent server again, as the first one did for 2 s.
        await eventually(again, (ms) => expect(ms).toBeLessThan(firstMs));
        line.speak();
        await eventually(
          () => scrape(registry),
          (series) => {
            for (const gauge of gauges) expect(shown(series, gauge)).not.toEqual({});
          },
        );
      } finally {
        line.speak();
        await apps.close(app);
        await line.end();
      }
    },
  );

  it('of two applications in one process do not meet, and end with their application', async () => {
    const [one, other] = [new Registry(), new Registry()];
    const processor = processorOf('charges', { effect: 'keyed' }, () => 'done');
    const options = { queues: ['charges'], providers: [processor] };
    const { app } = await apps.fresh(backend, { ...options, jobs: metricsIn(one) });
    const { app: second } = await apps.fresh(backend, { ...options, jobs: metricsIn(other) });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    const completed = 'jobs_processed_total{job="charge",queue="charges",result="completed"}';
    await eventually(
      () => scrape(one),
      (series) => expect(series).toMatchObject({ [completed]: 1 }),
    );
    expect(await scrape(other)).not.toHaveProperty([completed]);
    await apps.close(app);
    expect(one.getMetricsAsArray()).toEqual([]);
    expect(other.getMetricsAsArray()).not.toEqual([]);
    await enqueue(second, 'charges', 'charge', {}, 'charge:1');
    await settled(second, 'charge:1');
  });

  it('refuse to share a registry with another application that still runs', async () => {
    const registry = new Registry();
    const options = { queues: ['charges'], jobs: metricsIn(registry) };
    const { app, place } = await apps.fresh(backend, options);
    await expect(apps.beside(place, options)).rejects.toThrow(/registry already has a metric/);
    await apps.close(app);
    await apps.beside(place, options);
    expect(idempotentQueue(app, 'charges')).toBeDefined();
  });
});
