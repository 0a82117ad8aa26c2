/** What travels with an operation so that its trace goes on wherever it is run: W3C headers, by their names. */
export type TraceCarrier = Readonly<Record<string, string>>;

/** Facts about a span, by their names. Never payloads, results or messages of errors. */
export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** A span to be opened. */
export interface SpanStart {
  readonly name: string;
  /**
   * `internal` and `producer` belong to the span that is active. `consumer` is a delivery: where somebody has opened a
   * span around it already (BullMQ's own telemetry), it is that one; otherwise a new one under `parent`.
   */
  readonly kind: 'internal' | 'producer' | 'consumer';
  readonly attributes: SpanAttributes;
  /** A carrier, or whatever `traceContext` left; for `consumer` only. Not readable as one: a new trace. */
  readonly parent?: unknown;
  /** Spans of other traces that led to this one, each as a carrier or as a {@link TracingSpan.reference}. */
  readonly links?: readonly unknown[];
}

/** An open span. */
export interface TracingSpan {
  /** What another span links to this one by, as a W3C `traceparent`; undefined: there is nothing to link to. */
  readonly reference: string | undefined;
  set(attributes: SpanAttributes): void;
  /** Links to another span, as in {@link SpanStart.links}. To itself, or a second time: does nothing. */
  link(to: unknown): void;
  event(name: string, attributes?: SpanAttributes): void;
  /** Marks it as failed. `description` is a word from a closed list. */
  fail(description: string): void;
}

/**
 * How the library makes spans, without knowing who collects them: `forRoot({ tracing: otelTracing() })`, from
 * `nestjs-idempotent-jobs/otel`, or one of your own. None of its methods may throw because of tracing; `span` rejects
 * with what `work` rejected with, and nothing else.
 */
export interface Tracing {
  /** The trace that the calling code belongs to, to be stored as JSON; undefined: none. */
  carrier(): TraceCarrier | undefined;
  /** Runs `work` outside of every trace: what is started once and goes on for ever belongs to no request. */
  detached<T>(work: () => T): T;
  /** Runs `work` with a span around it, which is active in it and ends with it. */
  span<T>(start: SpanStart, work: (span: TracingSpan) => Promise<T>): Promise<T>;
}

/** Whether something is an object of texts, as headers are. */
export function isCarrier(trace: unknown): trace is TraceCarrier {
  if (trace === null || typeof trace !== 'object' || Array.isArray(trace)) return false;
  const values = Object.values(trace);
  return values.length > 0 && values.every((value) => typeof value === 'string');
}
