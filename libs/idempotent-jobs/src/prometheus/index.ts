// The public API of nestjs-idempotent-jobs/prometheus.
export { prometheusMetrics, type PrometheusMetricsOptions } from './metrics.js';
