import { definedOf } from '../option-checks/option-checks.js';
import {
  type Context,
  context,
  isSpanContextValid,
  propagation,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from '@opentelemetry/api';
import { ConfigurationError } from '../operation/errors.js';
import { errorTypeOf } from '../tracing/attributes.js';
import { orUndefined } from '../operation/thrown.js';
import {
  isCarrier,
  type SpanAttributes,
  type SpanStart,
  type TraceCarrier,
  type Tracing,
  type TracingSpan,
} from '../tracing/tracing.js';

/** Options of {@link otelTracing}. */
export interface OtelTracingOptions {
  /** Makes the spans. Default: the global provider's tracer `nestjs-idempotent-jobs`. */
  readonly tracer?: Tracer;
}

/**
 * Spans by OpenTelemetry: `IdempotentJobsModule.forRoot({ tracing: otelTracing() })`. It uses the tracer provider,
 * context manager and propagator that the application has registered, before or after this call; without an SDK it does
 * nothing.
 *
 * @throws ConfigurationError if `tracer` is not a tracer
 */
export function otelTracing(options: OtelTracingOptions = {}): Tracing {
  const { tracer = trace.getTracer('nestjs-idempotent-jobs') } = options;
  if (typeof (tracer as Partial<Tracer> | null)?.startSpan !== 'function') {
    throw new ConfigurationError(
      'otelTracing({ tracer }) needs a tracer of @opentelemetry/api, e.g. trace.getTracer("my-app").',
    );
  }
  return new OtelTracing(tracer);
}

/**
 * Tracers, span processors, propagators and context managers belong to the application. Errors that they throw are
 * swallowed here: the work then runs without a span, and still exactly once.
 */
class OtelTracing implements Tracing {
  constructor(private readonly tracer: Tracer) {}

  carrier(): TraceCarrier | undefined {
    const carrier: Record<string, string> = {};
    orUndefined(() => propagation.inject(context.active(), carrier));
    return isCarrier(carrier) ? carrier : undefined;
  }

  detached<T>(work: () => T): T {
    return within(ROOT_CONTEXT, work);
  }

  async span<T>(start: SpanStart, work: (span: TracingSpan) => Promise<T>): Promise<T> {
    const around = start.kind === 'consumer' ? orUndefined(() => trace.getActiveSpan()) : undefined;
    if (around !== undefined) return work(adopt(around, start));
    const opening = orUndefined(() => this.#open(start));
    if (opening === undefined) return work(NO_SPAN);
    const { span, inside } = opening;
    try {
      return await within(inside, () => work(opened(span, start)));
    } catch (error) {
      orUndefined(() => span.setAttribute('error.type', errorTypeOf(error)));
      orUndefined(() => span.setStatus({ code: SpanStatusCode.ERROR }));
      throw error;
    } finally {
      orUndefined(() => span.end());
    }
  }

  #open({ name, kind, attributes, parent: handedOn }: SpanStart): { span: Span; inside: Context } {
    const parent = kind === 'consumer' ? contextOf(handedOn) : context.active();
    const span = this.tracer.startSpan(
      name,
      { kind: KINDS[kind], attributes: definedOf(attributes) },
      parent,
    );
    return { span, inside: trace.setSpan(parent, span) };
  }
}

/** Runs `work` in a context, or outside of it if the context manager does not call it. */
function within<T>(inside: Context, work: () => T): T {
  let answer: (() => T) | undefined;
  const run = (): void => {
    try {
      const value = work();
      answer = () => value;
    } catch (error) {
      answer = () => {
        throw error;
      };
    }
  };
  orUndefined(() => context.with(inside, run));
  if (answer === undefined) run();
  return (answer as unknown as () => T)();
}

const NO_SPAN: TracingSpan = {
  reference: undefined,
  set: () => undefined,
  link: () => undefined,
  event: () => undefined,
  fail: () => undefined,
};

const KINDS = {
  internal: SpanKind.INTERNAL,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
} as const;

/** Uses the application's active span, which the application also ends. */
function adopt(span: Span, start: SpanStart): TracingSpan {
  const adopted = opened(span, start);
  adopted.set(start.attributes);
  return adopted;
}

function opened(span: Span, { links = [] }: SpanStart): TracingSpan {
  const own = new OtelSpan(span);
  for (const link of links) own.link(link);
  return own;
}

class OtelSpan implements TracingSpan {
  readonly #own: SpanContext | undefined;
  readonly #linked = new Set<string>();

  constructor(private readonly span: Span) {
    const own = orUndefined(() => span.spanContext());
    if (own === undefined || !isSpanContextValid(own)) return;
    this.#own = own;
    this.#linked.add(own.spanId);
  }

  get reference(): string | undefined {
    const own = this.#own;
    if (own === undefined) return undefined;
    return `00-${own.traceId}-${own.spanId}-${own.traceFlags.toString(16).padStart(2, '0')}`;
  }

  set(attributes: SpanAttributes): void {
    orUndefined(() => this.span.setAttributes(definedOf(attributes)));
  }

  link(to: unknown): void {
    const target = typeof to === 'string' ? readReference(to) : trace.getSpanContext(contextOf(to));
    if (target === undefined || !isSpanContextValid(target) || this.#linked.has(target.spanId)) return;
    this.#linked.add(target.spanId);
    // Spans of an SDK for @opentelemetry/api before 1.9 cannot be linked.
    orUndefined(() => this.span.addLink({ context: target }));
  }

  event(name: string, attributes: SpanAttributes = {}): void {
    orUndefined(() => this.span.addEvent(name, definedOf(attributes)));
  }

  fail(description: string): void {
    orUndefined(() => this.span.setStatus({ code: SpanStatusCode.ERROR, message: description }));
  }
}

/** The context of a trace that was handed on, whatever value it is, independent of the current trace. */
function contextOf(trace: unknown): Context {
  if (!isCarrier(trace)) return ROOT_CONTEXT;
  return orUndefined(() => propagation.extract(ROOT_CONTEXT, trace)) ?? ROOT_CONTEXT;
}

/** Parsed here, since the application's propagator may use another format than W3C. */
function readReference(reference: string): SpanContext | undefined {
  const [, traceId, spanId, flags] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(reference) ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
}
