// Observability: events, metrics, traces, health and the doctor.
export {
  IdempotentJobsHealthIndicator,
  type LedgerThresholds,
  type QueueThresholds,
} from '../operate/health/idempotent-jobs.health.js';
export { Doctor } from '../operate/doctor/doctor.js';
export type {
  DoctorAnswer,
  DoctorCode,
  DoctorFinding,
  DoctorReport,
  DoctorSeverity,
} from '../operate/doctor/doctor-report.js';
export {
  type DependencyEvent,
  type JobEvent,
  JobEvents,
  type JobEventSubject,
} from '../events/job-events.js';
export type { RetryDecision } from '../operation/reasons.js';
export type { SpanAttributes, SpanStart, TraceCarrier, Tracing, TracingSpan } from '../tracing/tracing.js';
export {
  type CounterMetric,
  type GaugeMetric,
  type HistogramMetric,
  JOB_METRICS,
  type JobMetric,
} from '../observe/metrics/catalogue.js';
export type {
  CounterSeries,
  GaugeReading,
  HistogramSeries,
  Labels,
  MetricsAdapter,
  OpenMetrics,
  ReadGauges,
} from '../observe/metrics/metrics.port.js';
