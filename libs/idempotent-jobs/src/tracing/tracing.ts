/** What travels with an operation so that its trace continues wherever it runs: W3C headers, by name. */
export type TraceCarrier = Readonly<Record<string, string>>;

/** Facts about a span, by name. Never payloads, results or error messages. */
export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** A span to be opened. */
export interface SpanStart {
  readonly name: string;
  /**
   * `internal` and `producer` belong to the active span. `consumer` is a delivery: an existing span around it (of BullMQ's
   * own telemetry) is used; otherwise a new one is opened under `parent`.
   */
  readonly kind: 'internal' | 'producer' | 'consumer';
  readonly attributes: SpanAttributes;
  /** A carrier, or whatever `traceContext` returned; for `consumer` only. If it cannot be read, a new trace begins. */
  readonly parent?: unknown;
  /** Spans of other traces that led to this one, each as a carrier or as a {@link TracingSpan.reference}. */
  readonly links?: readonly unknown[];
}

/** An open span. */
export interface TracingSpan {
  /** The W3C `traceparent` by which other spans link to this one. Undefined when there is nothing to link to. */
  readonly reference: string | undefined;
  set(attributes: SpanAttributes): void;
  /** Links to another span, as in {@link SpanStart.links}. A link to itself, or a repeated one, does nothing. */
  link(to: unknown): void;
  event(name: string, attributes?: SpanAttributes): void;
  /** Marks the span as failed. `description` is a word from a closed list. */
  fail(description: string): void;
}

/**
 * How the library makes spans, whatever collects them: `forRoot({ tracing: otelTracing() })` from
 * `nestjs-idempotent-jobs/otel`, or an implementation of your own. No method may throw because of tracing; `span` rejects
 * only with what `work` rejected with.
 */
export interface Tracing {
  /** The trace of the calling code, to be stored as JSON. Undefined when there is none. */
  carrier(): TraceCarrier | undefined;
  /** Runs `work` outside of every trace, because what is started once and runs for ever belongs to no request. */
  detached<T>(work: () => T): T;
  /** Runs `work` inside of a new span, which is active during it and ends with it. */
  span<T>(start: SpanStart, work: (span: TracingSpan) => Promise<T>): Promise<T>;
}

/** Whether a value is an object whose values are all texts, as headers are. */
export function isCarrier(trace: unknown): trace is TraceCarrier {
  if (trace === null || typeof trace !== 'object' || Array.isArray(trace)) return false;
  const values = Object.values(trace);
  return values.length > 0 && values.every((value) => typeof value === 'string');
}
