import { trace } from '@opentelemetry/api';
import { IdempotentJobsModule, type Tracing } from 'nestjs-idempotent-jobs';
import { otelTracing } from 'nestjs-idempotent-jobs/otel';

const tracing: Tracing = otelTracing({ tracer: trace.getTracer('shop') });
IdempotentJobsModule.forRoot({ tracing });
if ((await tracing.span({ name: 'a', kind: 'internal', attributes: {} }, async () => 1)) !== 1)
  throw new Error('No span was run');
