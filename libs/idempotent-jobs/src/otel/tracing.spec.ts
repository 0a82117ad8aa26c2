import { context, propagation, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core';
import {
  AlwaysOffSampler,
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigurationError } from '../operation/errors.js';
import type { SpanStart } from '../tracing/tracing.js';
import { otelTracing } from './tracing.js';

const TRACE = 'a'.repeat(32);
const SPAN = 'b'.repeat(16);
const PARENT = { traceparent: `00-${TRACE}-${SPAN}-01` };

const exporter = new InMemorySpanExporter();
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });

beforeEach(() => {
  exporter.reset();
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(
    new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
  );
  trace.setGlobalTracerProvider(provider);
});
afterEach(() => {
  trace.disable();
  context.disable();
  propagation.disable();
});

function start(changes: Partial<SpanStart> = {}): SpanStart {
  return { name: 'process charges', kind: 'consumer', attributes: {}, ...changes };
}

/** The spans that have ended, in the order of their ends. */
function ended(): ReadableSpan[] {
  return exporter.getFinishedSpans();
}

/** The span that a delivery was given. */
async function delivered(changes: Partial<SpanStart>): Promise<ReadableSpan> {
  await otelTracing().span(start(changes), async () => undefined);
  const [span] = ended();
  if (span === undefined) throw new Error('No span has ended');
  return span;
}

describe('otelTracing', () => {
  it('refuses what is no tracer', () => {
    expect(() => otelTracing({ tracer: {} as never })).toThrow(ConfigurationError);
    expect(() => otelTracing({ tracer: null as never })).toThrow(ConfigurationError);
  });

  it('makes spans with the tracer it was given', async () => {
    await otelTracing({ tracer: provider.getTracer('mine') }).span(start(), async () => undefined);
    expect(ended()[0]?.instrumentationScope.name).toBe('mine');
  });

  it('does its work, and nothing else, where no SDK is registered', async () => {
    trace.disable();
    context.disable();
    propagation.disable();
    const tracing = otelTracing();
    const reference = await tracing.span(start({ parent: PARENT, links: [PARENT] }), async (span) => {
      span.set({ a: 1 });
      span.link(PARENT);
      span.event('claimed');
      span.fail('refused');
      return span.reference;
    });
    expect(reference).toBeUndefined();
    expect(tracing.carrier()).toBeUndefined();
    expect(tracing.detached(() => 7)).toBe(7);
  });

  it('has no carrier outside of any trace', () => {
    expect(otelTracing().carrier()).toBeUndefined();
  });

  it('hands on the active span and the baggage', async () => {
    const tracing = otelTracing();
    const baggage = propagation.createBaggage({ request: { value: '17' } });
    const { carrier, reference } = await context.with(propagation.setBaggage(ROOT_CONTEXT, baggage), () =>
      tracing.span(start({ kind: 'producer' }), async (span) => ({
        carrier: tracing.carrier(),
        reference: span.reference,
      })),
    );
    expect(carrier).toEqual({ traceparent: reference, baggage: 'request=17' });
  });

  it('runs detached work outside of the active span', async () => {
    const tracing = otelTracing();
    await tracing.span(start({ kind: 'internal' }), async () => {
      expect(trace.getActiveSpan()).toBeDefined();
      expect(tracing.detached(() => trace.getActiveSpan())).toBeUndefined();
    });
  });

  it.each([
    ['internal', SpanKind.INTERNAL],
    ['producer', SpanKind.PRODUCER],
  ] as const)('puts %s spans into the active one', async (kind, expected) => {
    const tracing = otelTracing();
    await tracing.span(start({ name: 'outer', kind: 'internal' }), () =>
      tracing.span(start({ name: 'inner', kind, parent: PARENT }), async () => undefined),
    );
    const [inner, outer] = ended() as [ReadableSpan, ReadableSpan];
    expect(inner).toMatchObject({ name: 'inner', kind: expected });
    expect(inner.parentSpanContext?.spanId).toBe(outer.spanContext().spanId);
  });
});

describe('otelTracing: a delivery', () => {
  it('is a consumer span under the carrier that was handed on, active in its work, with its baggage', async () => {
    const tracing = otelTracing();
    const parent = { ...PARENT, baggage: 'request=17' };
    await tracing.span(start({ parent, attributes: { a: 1, b: undefined } }), async (span) => {
      expect(trace.getActiveSpan()?.spanContext().spanId).toBe(span.reference?.slice(36, 52));
      expect(propagation.getActiveBaggage()?.getEntry('request')?.value).toBe('17');
    });
    const [span] = ended() as [ReadableSpan];
    expect(span).toMatchObject({ name: 'process charges', kind: SpanKind.CONSUMER, attributes: { a: 1 } });
    expect(span.attributes).not.toHaveProperty('b');
    expect(span.spanContext().traceId).toBe(TRACE);
    expect(span.parentSpanContext?.spanId).toBe(SPAN);
  });

  it.each([
    undefined,
    null,
    'a text',
    17,
    [],
    {},
    { sale: 1 },
    { traceparent: 'nonsense' },
    { traceparent: { toString: 1 } },
  ])('begins a trace where what was handed on is no carrier: %o', async (parent) => {
    expect((await delivered({ parent, links: [parent] })).parentSpanContext).toBeUndefined();
    expect(ended()[0]?.links).toEqual([]);
  });

  it('takes the span that somebody has opened around it, and leaves its end to them', async () => {
    const tracing = otelTracing();
    await provider.getTracer('bullmq').startActiveSpan('process theirs', async (theirs) => {
      await tracing.span(start({ parent: PARENT, attributes: { a: 1 }, links: [PARENT] }), async (span) => {
        expect(span.reference).toContain(theirs.spanContext().spanId);
        span.fail('refused');
      });
      expect(ended()).toEqual([]);
      theirs.end();
    });
    expect(ended()).toHaveLength(1);
    expect(ended()[0]).toMatchObject({
      name: 'process theirs',
      attributes: { a: 1 },
      links: [{ context: { traceId: TRACE, spanId: SPAN } }],
      status: { code: SpanStatusCode.ERROR, message: 'refused' },
    });
  });

  it('opens none of its own in a span that is not sampled', async () => {
    const off = new BasicTracerProvider({ sampler: new AlwaysOffSampler() }).getTracer('bullmq');
    await off.startActiveSpan('process theirs', () => otelTracing().span(start(), async () => undefined));
    expect(ended()).toEqual([]);
  });

  it('links to references and carriers, each once, and neither to itself nor to what is none', async () => {
    await otelTracing().span(start({ links: [PARENT] }), async (span) => {
      span.link(`00-${TRACE}-${SPAN}-01`);
      span.link(`00-${TRACE}-${'c'.repeat(16)}-00`);
      span.link(span.reference);
      for (const nothing of [undefined, '', 'x', `00-${'0'.repeat(32)}-${SPAN}-01`, `01-${TRACE}-${SPAN}-01`])
        span.link(nothing);
    });
    expect(ended()[0]?.links.map(({ context: { spanId, isRemote } }) => [spanId, isRemote])).toEqual([
      [SPAN, true],
      ['c'.repeat(16), true],
    ]);
  });

  it('rejects with the very error of its work, of which it tells the class only', async () => {
    const error = new RangeError('token hunter2');
    await expect(otelTracing().span(start(), () => Promise.reject(error))).rejects.toBe(error);
    const [span] = ended() as [ReadableSpan];
    expect(span.attributes).toEqual({ 'error.type': 'RangeError' });
    expect(span.status).toEqual({ code: SpanStatusCode.ERROR });
    expect(span.events).toEqual([]);
    expect(span.ended).toBe(true);
  });

  it('ends with its work, and tells events and the reason of its failure', async () => {
    await otelTracing().span(start(), async (span) => {
      span.event('claimed', { attempt: 1, none: undefined });
      span.fail('ECONNREFUSED');
      expect(ended()).toEqual([]);
    });
    expect(ended()[0]).toMatchObject({
      events: [{ name: 'claimed', attributes: { attempt: 1 } }],
      status: { code: SpanStatusCode.ERROR, message: 'ECONNREFUSED' },
    });
  });
});

describe('otelTracing: tracing that is broken', () => {
  const broken = (): never => {
    throw new Error('broken');
  };
  const brokenSpan = new Proxy({}, { get: () => broken }) as never;

  it.each([
    ['a tracer that makes no spans', { startSpan: broken }],
    ['spans of which nothing works', { startSpan: () => brokenSpan }],
    // Links were added to spans in 1.9 of the API.
    [
      'spans without links',
      {
        startSpan: (...args: Parameters<ReturnType<typeof provider.getTracer>['startSpan']>) =>
          Object.assign(provider.getTracer('t').startSpan(...args), { addLink: undefined }),
      },
    ],
  ])('runs the work once, and gives what it gives: %s', async (_what, tracer) => {
    const tracing = otelTracing({ tracer: tracer as never });
    let runs = 0;
    const value = await tracing.span(start({ links: [PARENT.traceparent] }), async (span) => {
      runs += 1;
      span.set({ a: 1 });
      span.link(PARENT.traceparent);
      span.event('happened');
      span.fail('no');
      return span.reference?.length === 0 ? 'never' : 'done';
    });
    expect({ value, runs }).toEqual({ value: 'done', runs: 1 });
    const fault = new Error('its own');
    await expect(tracing.span(start(), () => Promise.reject(fault))).rejects.toBe(fault);
  });

  it('enqueues without a carrier when the propagator throws', () => {
    propagation.disable();
    propagation.setGlobalPropagator({ inject: broken, extract: broken, fields: () => [] });
    expect(otelTracing().carrier()).toBeUndefined();
  });

  it('is not stopped by a processor of spans', async () => {
    const throwing = {
      onStart: () => undefined,
      onEnd: broken,
      forceFlush: async () => {},
      shutdown: async () => {},
    };
    const tracer = new BasicTracerProvider({ spanProcessors: [throwing] }).getTracer('t');
    expect(await otelTracing({ tracer }).span(start(), async () => 7)).toBe(7);
  });
});
