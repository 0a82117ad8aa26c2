// The public API of nestjs-idempotent-jobs/otel.
export { otelMetrics, type OtelMetricsOptions } from './metrics.js';
export { otelTracing, type OtelTracingOptions } from './tracing.js';
