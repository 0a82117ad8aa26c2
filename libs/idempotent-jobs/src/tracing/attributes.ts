import { cleanText, isA, read } from '../operation/thrown.js';
import type { OperationIdentity } from '../operation/identity.js';
import { shownKey } from '../operation/origin.js';
import type { SpanAttributes } from './tracing.js';

/** The operation that a span belongs to. Tenants and keys are what traces are searched by; metrics leave them out. */
export function identityAttributes({ tenantId, operationKey }: OperationIdentity): SpanAttributes {
  return { 'idempotent_jobs.tenant_id': tenantId, 'idempotent_jobs.operation_key': shownKey(operationKey) };
}

/** A queue in the terms of OpenTelemetry's messaging conventions. */
export function queueAttributes(
  queue: string,
  operation: 'send' | 'process',
  operationName: string,
): SpanAttributes {
  return {
    'messaging.system': 'bullmq',
    'messaging.destination.name': queue,
    'messaging.operation.type': operation,
    'messaging.operation.name': operationName,
  };
}

/** The class of what was thrown. Its message may contain anything, and is in the ledger and in the log. */
export function errorTypeOf(error: unknown): string {
  if (!isA(error, Error)) return typeof error;
  const name = read(read(error, 'constructor'), 'name');
  return typeof name === 'string' && name.length > 0 ? cleanText(name, MAX_TYPE) : 'Error';
}

const MAX_TYPE = 100;
