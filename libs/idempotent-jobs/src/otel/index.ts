// The public API of nestjs-idempotent-jobs/otel.
export { otelMetrics, type OtelMetricsOptions } from './metrics.js';
