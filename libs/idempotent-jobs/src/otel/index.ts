export { otelTracing, type OtelTracingOptions } from './tracing.js';
