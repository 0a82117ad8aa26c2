import type { INestApplicationContext } from '@nestjs/common';
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base';
import { trace } from '@opentelemetry/api';
import { BullMQOtel } from 'bullmq-otel';
import { FlowProducer } from 'bullmq';
import {
  currentOperation,
  type IdempotentProcessorOptions,
  type IdempotentQueue,
  PermanentError,
  Reconciliation,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { otelTracing } from 'nestjs-idempotent-jobs/otel';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { deliver, enqueue, idempotentQueue, lettersOf, settled } from '../support/ledger.js';
import {
  Gate,
  type Handler,
  identifyPlain,
  processorOf,
  reconcilingProcessorOf,
  SHORT_CLOCKS,
} from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';
import { idOf, inSpan, linksOf, traceOf, useSpans } from '../support/spans.js';

const QUICK = { attempts: 4, backoff: { baseMs: 10, capMs: 20 } };
const CASES = BACKENDS.flatMap((backend) => [
  { backend, isBullTraced: false },
  { backend, isBullTraced: true },
]);

const spans = useSpans();

describe.each(CASES)(
  'traces on $backend, with spans of BullMQ: $isBullTraced',
  ({ backend, isBullTraced }) => {
    const apps = useApps();
    const telemetry = isBullTraced ? { telemetry: new BullMQOtel({ tracerName: 'bullmq' }) } : {};

    const charging = (handler: Handler, options: IdempotentProcessorOptions = {}) =>
      processorOf('charges', { effect: 'keyed', retry: QUICK, ...options }, handler, {
        ...SHORT_CLOCKS,
        ...telemetry,
      });
    const options = (...providers: ReturnType<typeof charging>[]) => ({
      queues: ['charges', 'receipts'].map((name) => ({ name, bullmq: telemetry })),
      providers,
      jobs: { tracing: otelTracing() },
    });
    const start = async (...providers: ReturnType<typeof charging>[]): Promise<INestApplicationContext> =>
      (await apps.fresh(backend, options(...providers))).app;
    const charge = (app: INestApplicationContext, key = 'charge:1'): Promise<unknown> =>
      enqueue(app, 'charges', 'charge', { secret: 'hunter2' }, key);
    /** The spans of deliveries to a queue, once as many have ended. */
    const deliveries = (count: number, queue = 'charges'): Promise<ReadableSpan[]> =>
      eventually(
        () => spans.named(`process ${queue}`),
        (found) => expect(found).toHaveLength(count),
      );

    it('the handler’s own spans are in the trace of the request that enqueued, below it', async () => {
      const app = await start(charging(() => inSpan('gateway', async () => 'charged')));
      await inSpan('request', () => charge(app));
      await settled(app, 'charge:1');
      const [delivery] = await deliveries(1);
      expect(spans.above(spans.the('gateway'))).toEqual(['process charges', 'enqueue charges', 'request']);
      expect(delivery?.attributes).toMatchObject({
        'messaging.system': 'bullmq',
        'messaging.destination.name': 'charges',
        'idempotent_jobs.tenant_id': 'acme',
        'idempotent_jobs.operation_key': 'charge:1',
        'idempotent_jobs.effect': 'keyed',
        'idempotent_jobs.attempt': 1,
        'idempotent_jobs.outcome': 'completed',
      });
      expect(delivery?.status.code).toBe(0);
      expect(delivery?.links).toEqual([]);
    });

    it('so they are when it was enqueued in a transaction, many at once, or straight to the queue', async () => {
      const app = await start(
        charging((job) => inSpan(`gateway ${(job.data as { n: number }).n}`, async () => 1)),
      );
      const queue = idempotentQueue(app, 'charges');
      const request = (n: number) => ({
        name: 'charge',
        payload: { n },
        operationKey: `charge:${n}`,
        tenantId: 'acme',
      });
      await inSpan('transaction', () =>
        dataSourceOf(app).transaction((transaction) =>
          queue.enqueue('charge', { n: 1 }, { operationKey: 'charge:1', tenantId: 'acme', transaction }),
        ),
      );
      await inSpan('batch', () => queue.enqueueMany([request(2), request(3)]));
      await inSpan('quick', () =>
        queue.enqueue(
          'charge',
          { n: 4 },
          { operationKey: 'charge:4', tenantId: 'acme', durability: 'queue' },
        ),
      );
      await Promise.all([1, 2, 3, 4].map((n) => settled(app, `charge:${n}`)));
      await deliveries(4);
      const rootOf = (n: number) => spans.above(spans.the(`gateway ${n}`)).at(-1);
      expect([1, 2, 3, 4].map(rootOf)).toEqual(['transaction', 'batch', 'batch', 'quick']);
    });

    it('attempts are side by side in that trace, each linked to the one before', async () => {
      const app = await start(
        charging((_job, { attempt }) => {
          if (attempt < 3) throw new TransientError('refused');
        }),
      );
      await inSpan('request', () => charge(app));
      await settled(app, 'charge:1');
      const [first, second, third] = (await deliveries(3)) as [ReadableSpan, ReadableSpan, ReadableSpan];
      expect(new Set([first, second, third].map(traceOf)).size).toBe(1);
      for (const attempt of [first, second, third])
        expect(spans.above(attempt)).toEqual(['enqueue charges', 'request']);
      expect([first, second, third].map(linksOf)).toEqual([[], [idOf(first)], [idOf(second)]]);
      expect(first.attributes).toMatchObject({
        'idempotent_jobs.attempt': 1,
        'idempotent_jobs.outcome': 'retrying',
        'idempotent_jobs.failure_kind': 'transient',
        'error.type': 'TransientError',
      });
      expect(first.status.code).toBe(2);
      expect(third.attributes['idempotent_jobs.outcome']).toBe('completed');
    });

    it('a redrive has a trace of its own, linked to the request and to the last attempt', async () => {
      let isOpen = false;
      const app = await start(
        charging((_job, { attempt }) => {
          if (!isOpen) throw new PermanentError('closed');
          if (attempt === 1) throw new TransientError('busy');
        }),
      );
      await inSpan('request', () => charge(app));
      const [letter] = await eventually(
        () => lettersOf(app),
        (letters) => expect(letters).toHaveLength(1),
      );
      const [last] = (await deliveries(1)) as [ReadableSpan];
      isOpen = true;
      await app.get(DeadLetterService).redrive(letter?.id as string, { actor: 'ada', note: 'open again' });
      await settled(app, 'charge:1');
      const [, first, second] = (await deliveries(3)) as [ReadableSpan, ReadableSpan, ReadableSpan];
      const redrive = spans.the('redrive charges');
      expect(traceOf(redrive)).not.toBe(traceOf(spans.the('request')));
      expect(redrive.parentSpanContext).toBeUndefined();
      expect(linksOf(redrive)).toEqual([idOf(spans.the('enqueue charges')), idOf(last)]);
      for (const attempt of [first, second]) expect(spans.above(attempt)).toEqual(['redrive charges']);
      expect(linksOf(first)).toEqual([idOf(spans.the('enqueue charges')), idOf(last)]);
      expect(linksOf(second)).toContain(idOf(first));
    });

    it('workers and the dispatcher, started while a request is traced, do not run jobs as part of it', async () => {
      const app = await inSpan('booting request', () =>
        start(charging(() => inSpan('gateway', async () => 1))),
      );
      await inSpan('request', () => charge(app, 'charge:1'));
      await charge(app, 'charge:2');
      await deliveries(2);
      const booting = traceOf(spans.the('booting request'));
      expect(spans.all.filter((span) => traceOf(span) === booting).map(({ name }) => name)).toEqual([
        'booting request',
      ]);
      const roots = spans.named('gateway').map((span) => spans.above(span).at(-1));
      expect(new Set(roots)).toEqual(new Set(['request', 'enqueue charges']));
      // Woken by the request, the dispatcher still carries what is everybody's.
      const puts = spans.named('addBulk charges');
      if (isBullTraced) expect(puts).not.toHaveLength(0);
      for (const put of puts) expect(put.parentSpanContext).toBeUndefined();
    });

    it('follow-ups belong to the trace of the handler that enqueued them', async () => {
      const late: { receipts?: IdempotentQueue } = {};
      const receipts = processorOf('receipts', { effect: 'keyed' }, () => inSpan('mail', async () => 1), {
        ...SHORT_CLOCKS,
        ...telemetry,
      });
      const app = await start(
        charging((_job, operation) =>
          inSpan('gateway', async () =>
            operation.enqueue(late.receipts as IdempotentQueue, 'receipt', {}, { operationKey: 'receipt:1' }),
          ),
        ),
        receipts,
      );
      late.receipts = idempotentQueue(app, 'receipts');
      await inSpan('request', () => charge(app));
      await deliveries(1, 'receipts');
      expect(spans.above(spans.the('mail'))).toEqual([
        'process receipts',
        'gateway',
        'process charges',
        'enqueue charges',
        'request',
      ]);
    });

    it('steps and guarded calls have spans inside of the attempt; a step that has finished is linked to its run', async () => {
      const late: { app?: INestApplicationContext } = {};
      const app = await start(
        charging(
          async (_job, { attempt, step }) => {
            await step('pay', () => inSpan('gateway', async () => 'paid'), { effect: 'keyed' });
            await late.app?.get(IdempotencyService).once('mail:1', () => inSpan('mail', async () => 1), {
              effect: 'keyed',
            });
            if (attempt === 1) throw new TransientError('after the step');
          },
          { effect: 'natural' },
        ),
      );
      late.app = app;
      await inSpan('request', () => charge(app));
      await settled(app, 'charge:1');
      await deliveries(2);
      expect(spans.above(spans.the('gateway')).slice(0, 2)).toEqual(['step pay', 'process charges']);
      expect(spans.above(spans.the('mail')).slice(0, 2)).toEqual(['call', 'process charges']);
      const outcomes = (name: string) =>
        spans.named(name).map((span) => span.attributes['idempotent_jobs.outcome']);
      expect(outcomes('step pay')).toEqual(['completed', 'replayed']);
      expect(outcomes('call')).toEqual(['completed', 'replayed']);
      const [ran, replayed] = spans.named('step pay') as [ReadableSpan, ReadableSpan];
      expect(linksOf(replayed)).toEqual([idOf(ran)]);
      expect(ran.attributes['idempotent_jobs.operation_key']).toBe('charge:1/pay');
    });

    it('an attempt whose worker vanished is linked to by the one that took over', async () => {
      const gate = new Gate();
      const app = await start(
        charging(async (_job, { attempt }) => (attempt === 1 ? gate.pass() : undefined), {
          identify: identifyPlain,
        }),
      );
      await deliver(app, 'charges', 'charge:1');
      await gate.arrival;
      await dataSourceOf(app).query(
        "UPDATE job_outcomes SET lease_expires_at = clock_timestamp() - interval '1 second'",
      );
      await deliver(app, 'charges', 'charge:1');
      await settled(app, 'charge:1');
      const [second] = (await deliveries(1)) as [ReadableSpan];
      gate.open();
      const vanished = await eventually(
        () => spans.named('process charges').find((span) => idOf(span) !== idOf(second)),
        (span) => expect(span).toBeDefined(),
      );
      expect(linksOf(second)).toEqual([idOf(vanished as ReadableSpan)]);
      expect(vanished?.attributes).toMatchObject({
        'idempotent_jobs.outcome': 'deferred',
        'idempotent_jobs.deferral': 'fenced',
      });
    });

    it('a transactional attempt that failed is linked to by the next one', async () => {
      const app = await start(
        charging(
          (_job, { attempt }) => {
            if (attempt === 1) throw new TransientError('refused');
          },
          { effect: 'transactional' },
        ),
      );
      await inSpan('request', () => charge(app));
      await settled(app, 'charge:1');
      const [first, second] = (await deliveries(2)) as [ReadableSpan, ReadableSpan];
      expect(linksOf(second)).toEqual([idOf(first)]);
    });

    it('asking about a doubt is a span of its own, with what was said', async () => {
      const asked = reconcilingProcessorOf(
        'charges',
        { effect: 'reconciled', timeoutMs: 100, reconcile: { afterMs: [10], thenEveryMs: 60_000 } },
        () => new Promise(() => undefined),
        () => inSpan('look up', async () => Reconciliation.unknown()),
        { ...SHORT_CLOCKS, ...telemetry },
      );
      const app = await start(asked);
      await inSpan('request', () => charge(app));
      const [attempt, question] = (await deliveries(2)) as [ReadableSpan, ReadableSpan];
      expect(attempt.attributes).toMatchObject({
        'idempotent_jobs.outcome': 'in_doubt',
        'idempotent_jobs.failure_reason': 'timeout',
      });
      expect(spans.above(spans.the('look up')).slice(0, 2)).toEqual(['reconcile charges', 'process charges']);
      expect(spans.the('reconcile charges').attributes['idempotent_jobs.verdict']).toBe('unknown');
      expect(linksOf(question)).toEqual([idOf(attempt)]);
    });

    it('each iteration of a schedule has a trace of its own, linked to where the schedule was made', async () => {
      const app = await start(charging(() => inSpan('gateway', async () => 1)));
      await inSpan('boot', () =>
        idempotentQueue(app, 'charges').schedule(
          'charge',
          {},
          { operationKey: 'nightly', tenantId: 'acme', every: 400 },
        ),
      );
      await eventually(
        () => spans.named('gateway'),
        (found) => expect(found.length).toBeGreaterThanOrEqual(2),
      );
      await idempotentQueue(app, 'charges').unschedule({ operationKey: 'nightly', tenantId: 'acme' });
      const [first, second] = (await eventually(
        () => spans.named('process charges'),
        (found) => expect(found.length).toBeGreaterThanOrEqual(2),
      )) as [ReadableSpan, ReadableSpan];
      const boot = spans.the('boot');
      expect(new Set([first, second, boot].map(traceOf)).size).toBe(3);
      for (const iteration of [first, second]) {
        expect(iteration.parentSpanContext).toBeUndefined();
        expect(iteration.links.map((link) => link.context.traceId)).toEqual([traceOf(boot)]);
      }
    });

    it('a flow’s operations belong to the trace that made it', async () => {
      const { app, place } = await apps.fresh(
        backend,
        options(charging(() => inSpan('gateway', async () => 1))),
      );
      const flows = new FlowProducer({ connection: place.connection, prefix: place.prefix, ...telemetry });
      try {
        await inSpan('request', () =>
          flows.add(
            idempotentQueue(app, 'charges').flowJob(
              'charge',
              {},
              { operationKey: 'charge:1', tenantId: 'acme' },
            ),
          ),
        );
        await deliveries(1);
        expect(spans.above(spans.the('gateway'))).toEqual(['process charges', 'request']);
      } finally {
        await flows.close();
      }
    });

    it('no span of the library tells a payload, a result or the message of an error', async () => {
      const app = await start(
        charging((_job, { attempt }) => {
          if (attempt === 1) throw new TransientError('the key is hunter2');
          return { token: 'hunter2' };
        }),
      );
      await inSpan('request', () => charge(app));
      await settled(app, 'charge:1');
      await deliveries(2);
      const told = spans.all
        .filter((span) => span.instrumentationScope.name === 'nestjs-idempotent-jobs')
        .map(({ name, attributes, events, status }) => JSON.stringify({ name, attributes, events, status }));
      expect(told.length).toBeGreaterThan(0);
      expect(told.join()).not.toContain('hunter2');
    });

    it('the trace is handed on, and can be read, in the current operation', async () => {
      let seen: { trace: unknown; active: string | undefined } | undefined;
      const app = await start(
        charging(() => {
          seen = {
            trace: currentOperation().trace,
            active: trace.getActiveSpan()?.spanContext().traceId,
          };
        }),
      );
      await inSpan('request', () => charge(app));
      await settled(app, 'charge:1');
      const { traceId, spanId } = (await deliveries(1), spans.the('enqueue charges')).spanContext();
      expect(seen).toEqual({ trace: { traceparent: `00-${traceId}-${spanId}-01` }, active: traceId });
    });
  },
);
