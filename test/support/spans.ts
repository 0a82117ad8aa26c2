import { context, propagation, type Span, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { afterAll, beforeAll, beforeEach } from 'vitest';

/** The spans of a file's tests, forgotten before each of them. */
export class Spans {
  readonly #exporter = new InMemorySpanExporter();
  readonly processor = new SimpleSpanProcessor(this.#exporter);

  get all(): ReadableSpan[] {
    return this.#exporter.getFinishedSpans().toSorted((a, b) => startOf(a) - startOf(b));
  }

  /** In the order they were started. */
  named(name: string): ReadableSpan[] {
    return this.all.filter((span) => span.name === name);
  }

  /** The only one of that name. */
  the(name: string): ReadableSpan {
    const found = this.named(name);
    if (found.length !== 1)
      throw new Error(
        `${found.length} spans are named "${name}": ${this.all.map((span) => span.name).join(', ')}`,
      );
    return found[0] as ReadableSpan;
  }

  /** The names of the spans that a span is in, from its parent up to the root, as far as they have ended. */
  above(span: ReadableSpan): string[] {
    const parent = this.all.find((other) => other.spanContext().spanId === span.parentSpanContext?.spanId);
    return parent === undefined ? [] : [parent.name, ...this.above(parent)];
  }

  reset(): void {
    this.#exporter.reset();
  }
}

/** OpenTelemetry's SDK for the tests of a file. */
export function useSpans(): Spans {
  const spans = new Spans();
  beforeAll(() => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(
      new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
    );
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [spans.processor] }));
  });
  beforeEach(() => spans.reset());
  afterAll(() => {
    trace.disable();
    context.disable();
    propagation.disable();
  });
  return spans;
}

/** Runs `work` in a span of the application's own. */
export function inSpan<T>(name: string, work: (span: Span) => Promise<T>): Promise<T> {
  return trace.getTracer('application').startActiveSpan(name, async (span) => {
    try {
      return await work(span);
    } finally {
      span.end();
    }
  });
}

export const idOf = (span: ReadableSpan): string => span.spanContext().spanId;
export const traceOf = (span: ReadableSpan): string => span.spanContext().traceId;
export const linksOf = (span: ReadableSpan): string[] => span.links.map((link) => link.context.spanId);

function startOf({ startTime: [seconds, nanos] }: ReadableSpan): number {
  return seconds * 1000 + nanos / 1e6;
}
