import type { ReadableSpan } from '@opentelemetry/sdk-trace-base';
import { trace } from '@opentelemetry/api';
import { BullMQOtel } from 'bullmq-otel';
import { FlowProducer } from 'bullmq';
import { currentOperation, PermanentError, Reconciliation, TransientError } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { otelTracing } from 'nestjs-idempotent-jobs/otel';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, deliver, enqueue, idempotentQueue, lettersOf, settled } from '../support/ledger.js';
import {
  Gate,
  type Handler,
  identifyPlain,
  processorOf,
  reconcilingProcessorOf,
  Scripts,
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

    const worker = { ...SHORT_CLOCKS, ...telemetry };
    const charging = (handler: Handler) =>
      processorOf('charges', { effect: 'keyed', retry: QUICK, identify: identifyPlain }, handler, worker);
    const options = (queues: readonly string[], ...providers: ReturnType<typeof charging>[]) => ({
      queues: queues.map((name) => ({ name, bullmq: telemetry })),
      providers,
      jobs: { tracing: otelTracing() },
    });

    // One application for all cases but that of the start itself. Each case has a tenant of its own.
    const scripts = new Scripts();
    const app = useOneApp(
      backend,
      options(
        ['charges', 'receipts', 'orders', 'stock', 'payments'],
        charging(scripts.handler),
        processorOf('receipts', { effect: 'keyed' }, scripts.handler, worker),
        processorOf('orders', { effect: 'natural', retry: QUICK }, scripts.handler, worker),
        processorOf('stock', { effect: 'transactional', retry: QUICK }, scripts.handler, worker),
        reconcilingProcessorOf(
          'payments',
          { effect: 'reconciled', timeoutMs: 100, reconcile: { afterMs: [10], thenEveryMs: 60_000 } },
          scripts.handler,
          () => inSpan('look up', async () => Reconciliation.unknown()),
          worker,
        ),
      ),
    );
    const charge = (tenantId: string, queue = 'charges'): Promise<unknown> =>
      enqueue(app(), queue, 'charge', { secret: 'hunter2' }, 'charge:1', tenantId);
    const charged = (tenantId: string): Promise<unknown> => settled(app(), 'charge:1', tenantId);
    const deliveriesOf = (tenantId: string, queue = 'charges'): ReadableSpan[] =>
      spans
        .named(`process ${queue}`)
        .filter(({ attributes }) => attributes['idempotent_jobs.tenant_id'] === tenantId);
    /** The spans of a tenant's deliveries to a queue, once as many have ended. */
    const deliveries = (tenantId: string, count: number, queue = 'charges'): Promise<ReadableSpan[]> =>
      eventually(
        () => deliveriesOf(tenantId, queue),
        (found) => expect(found).toHaveLength(count),
      );

    it('the handler’s own spans are in the trace of the request that enqueued, below it', async () => {
      const tenantId = scripts.tenantWith(() => inSpan('gateway', async () => 'charged'));
      await inSpan('request', () => charge(tenantId));
      await charged(tenantId);
      const [delivery] = await deliveries(tenantId, 1);
      expect(spans.above(spans.the('gateway'))).toEqual(['process charges', 'enqueue charges', 'request']);
      expect(delivery?.attributes).toMatchObject({
        'messaging.system': 'bullmq',
        'messaging.destination.name': 'charges',
        'idempotent_jobs.tenant_id': tenantId,
        'idempotent_jobs.operation_key': 'charge:1',
        'idempotent_jobs.effect': 'keyed',
        'idempotent_jobs.attempt': 1,
        'idempotent_jobs.outcome': 'completed',
      });
      expect(delivery?.status.code).toBe(0);
      expect(delivery?.links).toEqual([]);
    });

    it('so they are when it was enqueued in a transaction, many at once, or straight to the queue', async () => {
      const tenantId = scripts.tenantWith((job) =>
        inSpan(`gateway ${(job.data as { n: number }).n}`, async () => 1),
      );
      const queue = idempotentQueue(app(), 'charges');
      const request = (n: number) => ({
        name: 'charge',
        payload: { n },
        operationKey: `charge:${n}`,
        tenantId,
      });
      await inSpan('transaction', () =>
        dataSourceOf(app()).transaction((transaction) =>
          queue.enqueue('charge', { n: 1 }, { operationKey: 'charge:1', tenantId, transaction }),
        ),
      );
      await inSpan('batch', () => queue.enqueueMany([request(2), request(3)]));
      await inSpan('quick', () =>
        queue.enqueue('charge', { n: 4 }, { operationKey: 'charge:4', tenantId, durability: 'queue' }),
      );
      await Promise.all([1, 2, 3, 4].map((n) => settled(app(), `charge:${n}`, tenantId)));
      await deliveries(tenantId, 4);
      const rootOf = (n: number) => spans.above(spans.the(`gateway ${n}`)).at(-1);
      expect([1, 2, 3, 4].map(rootOf)).toEqual(['transaction', 'batch', 'batch', 'quick']);
    });

    it('attempts are side by side in that trace, each linked to the one before', async () => {
      const tenantId = scripts.tenantWith((_job, { attempt }) => {
        if (attempt < 3) throw new TransientError('refused');
      });
      await inSpan('request', () => charge(tenantId));
      await charged(tenantId);
      const [first, second, third] = (await deliveries(tenantId, 3)) as [
        ReadableSpan,
        ReadableSpan,
        ReadableSpan,
      ];
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
      const tenantId = scripts.tenantWith((_job, { attempt }) => {
        if (!isOpen) throw new PermanentError('closed');
        if (attempt === 1) throw new TransientError('busy');
      });
      await inSpan('request', () => charge(tenantId));
      const [letter] = await eventually(
        () => lettersOf(app(), tenantId),
        (letters) => expect(letters).toHaveLength(1),
      );
      const [last] = (await deliveries(tenantId, 1)) as [ReadableSpan];
      isOpen = true;
      await app()
        .get(DeadLetterService)
        .redrive(letter?.id as string, { actor: 'ada', note: 'open again' });
      await charged(tenantId);
      const [, first, second] = (await deliveries(tenantId, 3)) as [ReadableSpan, ReadableSpan, ReadableSpan];
      const redrive = spans.the('redrive charges');
      expect(traceOf(redrive)).not.toBe(traceOf(spans.the('request')));
      expect(redrive.parentSpanContext).toBeUndefined();
      expect(linksOf(redrive)).toEqual([idOf(spans.the('enqueue charges')), idOf(last)]);
      for (const attempt of [first, second]) expect(spans.above(attempt)).toEqual(['redrive charges']);
      expect(linksOf(first)).toEqual([idOf(spans.the('enqueue charges')), idOf(last)]);
      expect(linksOf(second)).toContain(idOf(first));
    });

    it('workers and the dispatcher, started while a request is traced, do not run jobs as part of it', async () => {
      const { app } = await inSpan('booting request', () =>
        apps.fresh(
          backend,
          options(
            ['charges'],
            charging(() => inSpan('gateway', async () => 1)),
          ),
        ),
      );
      await inSpan('request', () => enqueue(app, 'charges', 'charge', {}, 'charge:1'));
      await enqueue(app, 'charges', 'charge', {}, 'charge:2');
      await deliveries('acme', 2);
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
      const tenantId = scripts.tenantWith((job, operation) =>
        job.queueName === 'receipts'
          ? inSpan('mail', async () => 1)
          : inSpan('gateway', async () =>
              operation.enqueue(
                idempotentQueue(app(), 'receipts'),
                'receipt',
                {},
                { operationKey: 'receipt:1' },
              ),
            ),
      );
      await inSpan('request', () => charge(tenantId));
      await deliveries(tenantId, 1);
      await deliveries(tenantId, 1, 'receipts');
      expect(spans.above(spans.the('mail'))).toEqual([
        'process receipts',
        'gateway',
        'process charges',
        'enqueue charges',
        'request',
      ]);
    });

    it('steps and guarded calls have spans inside of the attempt; a step that has finished is linked to its run', async () => {
      const tenantId = scripts.tenantWith(async (_job, { attempt, step }) => {
        await step('pay', () => inSpan('gateway', async () => 'paid'), { effect: 'keyed' });
        await app()
          .get(IdempotencyService)
          .once('mail:1', () => inSpan('mail', async () => 1), { effect: 'keyed' });
        if (attempt === 1) throw new TransientError('after the step');
      });
      await inSpan('request', () => charge(tenantId, 'orders'));
      await charged(tenantId);
      await deliveries(tenantId, 2, 'orders');
      expect(spans.above(spans.the('gateway')).slice(0, 2)).toEqual(['step pay', 'process orders']);
      expect(spans.above(spans.the('mail')).slice(0, 2)).toEqual(['call', 'process orders']);
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
      const tenantId = scripts.tenantWith(async (_job, { attempt }) =>
        attempt === 1 ? gate.pass() : undefined,
      );
      await deliver(app(), 'charges', 'charge:1', {}, tenantId);
      await gate.arrival;
      await dataSourceOf(app()).query(
        `UPDATE job_outcomes SET lease_expires_at = clock_timestamp() - interval '1 second'
         WHERE tenant_id = $1`,
        [tenantId],
      );
      await deliver(app(), 'charges', 'charge:1', {}, tenantId);
      await charged(tenantId);
      const [second] = (await deliveries(tenantId, 1)) as [ReadableSpan];
      gate.open();
      const vanished = await eventually(
        () => deliveriesOf(tenantId).find((span) => idOf(span) !== idOf(second)),
        (span) => expect(span).toBeDefined(),
      );
      expect(linksOf(second)).toEqual([idOf(vanished as ReadableSpan)]);
      expect(vanished?.attributes).toMatchObject({
        'idempotent_jobs.outcome': 'deferred',
        'idempotent_jobs.deferral': 'fenced',
      });
    });

    it('a transactional attempt that failed is linked to by the next one', async () => {
      const tenantId = scripts.tenantWith((_job, { attempt }) => {
        if (attempt === 1) throw new TransientError('refused');
      });
      await inSpan('request', () => charge(tenantId, 'stock'));
      await charged(tenantId);
      const [first, second] = (await deliveries(tenantId, 2, 'stock')) as [ReadableSpan, ReadableSpan];
      expect(linksOf(second)).toEqual([idOf(first)]);
    });

    it('asking about a doubt is a span of its own, with what was said', async () => {
      const tenantId = scripts.tenantWith(() => new Promise(() => undefined));
      await inSpan('request', () => charge(tenantId, 'payments'));
      const [attempt, question] = (await deliveries(tenantId, 2, 'payments')) as [ReadableSpan, ReadableSpan];
      expect(attempt.attributes).toMatchObject({
        'idempotent_jobs.outcome': 'in_doubt',
        'idempotent_jobs.failure_reason': 'timeout',
      });
      expect(spans.above(spans.the('look up')).slice(0, 2)).toEqual([
        'reconcile payments',
        'process payments',
      ]);
      expect(spans.the('reconcile payments').attributes['idempotent_jobs.verdict']).toBe('unknown');
      expect(linksOf(question)).toEqual([idOf(attempt)]);
    });

    it('each iteration of a schedule has a trace of its own, linked to where the schedule was made', async () => {
      const tenantId = scripts.tenantWith(() => inSpan('report', async () => 1));
      const schedule = { operationKey: 'nightly', tenantId };
      await inSpan('boot', () =>
        idempotentQueue(app(), 'charges').schedule('charge', {}, { ...schedule, every: 400 }),
      );
      await eventually(
        () => spans.named('report'),
        (found) => expect(found.length).toBeGreaterThanOrEqual(2),
      );
      await idempotentQueue(app(), 'charges').unschedule(schedule);
      const [first, second] = (await eventually(
        () => deliveriesOf(tenantId),
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
      const tenantId = scripts.tenantWith(() => inSpan('gateway', async () => 1));
      const { connection, prefix } = bullQueue(app(), 'charges').opts;
      const flows = new FlowProducer({ connection, prefix, ...telemetry });
      try {
        await inSpan('request', () =>
          flows.add(
            idempotentQueue(app(), 'charges').flowJob('charge', {}, { operationKey: 'charge:1', tenantId }),
          ),
        );
        await deliveries(tenantId, 1);
        expect(spans.above(spans.the('gateway'))).toEqual(['process charges', 'request']);
      } finally {
        await flows.close();
      }
    });

    it('no span of the library tells a payload, a result or the message of an error', async () => {
      const tenantId = scripts.tenantWith((_job, { attempt }) => {
        if (attempt === 1) throw new TransientError('the key is hunter2');
        return { token: 'hunter2' };
      });
      await inSpan('request', () => charge(tenantId));
      await charged(tenantId);
      await deliveries(tenantId, 2);
      const told = spans.all
        .filter((span) => span.instrumentationScope.name === 'nestjs-idempotent-jobs')
        .map(({ name, attributes, events, status }) => JSON.stringify({ name, attributes, events, status }));
      expect(told.length).toBeGreaterThan(0);
      expect(told.join()).not.toContain('hunter2');
    });

    it('the trace is handed on, and can be read, in the current operation', async () => {
      let seen: { trace: unknown; active: string | undefined } | undefined;
      const tenantId = scripts.tenantWith(() => {
        seen = {
          trace: currentOperation().trace,
          active: trace.getActiveSpan()?.spanContext().traceId,
        };
      });
      await inSpan('request', () => charge(tenantId));
      await charged(tenantId);
      const { traceId, spanId } = (await deliveries(tenantId, 1), spans.the('enqueue charges')).spanContext();
      expect(seen).toEqual({ trace: { traceparent: `00-${traceId}-${spanId}-01` }, active: traceId });
    });
  },
);
