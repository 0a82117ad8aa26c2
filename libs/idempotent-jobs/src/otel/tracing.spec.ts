import {
  type ContextManager,
  context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TextMapPropagator,
  trace,
} from '@opentelemetry/api';
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
import type { SpanStart, Tracing } from '../tracing/tracing.js';
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

  it('links to references and relays, each once, and neither to itself nor to what is none', async () => {
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

describe('otelTracing: an SDK that throws', () => {
  function boom(..._after: unknown[]): never {
    throw new Error('boom');
  }
  const NO_ADD_LINK = { startSpan: () => without(provider.getTracer('old').startSpan('old')) };
  const SULKING = { startSpan: () => new Proxy({}, { get: () => boom }) as Span };
  const withProcessor = (hook: 'onStart' | 'onEnd') =>
    new BasicTracerProvider({
      spanProcessors: [
        {
          onStart: () => undefined,
          onEnd: () => undefined,
          forceFlush: async () => undefined,
          shutdown: async () => undefined,
          [hook]: boom,
        },
      ],
    }).getTracer('hostile');

  /** As spans were before @opentelemetry/api 1.9. */
  function without(span: Span): Span {
    return Object.assign(span, { addLink: undefined });
  }

  /** Does with a span all that can be done, and answers how often it was asked to. */
  async function use(tracing: Tracing, kind: SpanStart['kind'] = 'consumer'): Promise<number> {
    let runs = 0;
    const answer = await tracing.span(
      start({ kind, parent: PARENT, links: [PARENT], attributes: { a: 1 } }),
      async (span) => {
        runs += 1;
        span.set({ b: 2 });
        span.link(`00-${TRACE}-${'c'.repeat(16)}-01`);
        span.event('claimed');
        span.fail('refused');
        return span.reference ?? 'none';
      },
    );
    expect(answer).toEqual(expect.any(String));
    return runs;
  }

  it.each([
    ['spans that cannot be linked', NO_ADD_LINK as never],
    ['spans that throw whatever they are asked', SULKING as never],
    ['a tracer that opens none', { startSpan: boom } as never],
    ['a processor that throws when a span starts', withProcessor('onStart')],
    ['a processor that throws when a span ends', withProcessor('onEnd')],
  ])('does the work once, and rejects with its errors only, with %s', async (_what, tracer) => {
    const tracing = otelTracing({ tracer });
    expect(await use(tracing, 'consumer')).toBe(1);
    expect(await use(tracing, 'producer')).toBe(1);
    const error = new RangeError('its own');
    await expect(tracing.span(start(), () => Promise.reject(error))).rejects.toBe(error);
  });

  it('does the work once in somebody else’s span that throws', async () => {
    const theirs = new Proxy({}, { get: () => boom }) as Span;
    await context.with(trace.setSpan(ROOT_CONTEXT, theirs), async () => {
      expect(await use(otelTracing())).toBe(1);
    });
  });

  it('hands on nothing, and begins a trace, with a propagator that throws', async () => {
    propagation.disable();
    propagation.setGlobalPropagator({ inject: boom, extract: boom, fields: () => [] } as TextMapPropagator);
    expect(otelTracing().carrier()).toBeUndefined();
    expect((await delivered({ parent: PARENT })).parentSpanContext).toBeUndefined();
  });

  it.each([
    ['before it has called the work', () => boom()],
    ['after it has called the work', (_context: unknown, work: () => unknown) => boom(work())],
  ])('does the work once with a context manager that throws %s', async (_when, within) => {
    context.disable();
    const hostile = {
      active: () => ROOT_CONTEXT,
      with: within,
      bind: boom,
      enable: boom,
      disable: () => hostile,
    };
    context.setGlobalContextManager(hostile as unknown as ContextManager);
    expect(await use(otelTracing())).toBe(1);
    let runs = 0;
    expect(otelTracing().detached(() => (runs += 1))).toBe(1);
    const error = new RangeError('its own');
    expect(() =>
      otelTracing().detached(() => {
        throw error;
      }),
    ).toThrow(error);
  });
});
