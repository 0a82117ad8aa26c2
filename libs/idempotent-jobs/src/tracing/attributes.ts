import { cleanText } from '../operation/clean-text.js';
import { isA, read } from '../operation/thrown.js';
import type { OperationIdentity } from '../operation/identity.js';
import { shownKey } from '../operation/step-key.js';
import type { SpanAttributes } from './tracing.js';

/** Whose span it is. Tenants and keys are what traces are searched by; metrics do without them. */
export function identityAttributes({ tenantId, operationKey }: OperationIdentity): SpanAttributes {
  return { 'idempotent_jobs.tenant_id': tenantId, 'idempotent_jobs.operation_key': shownKey(operationKey) };
}

/** A queue as OpenTelemetry's conventions for messaging name it. */
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

/** The class of what was thrown. Its message may hold anything, and is in the ledger and in the log. */
export function errorTypeOf(error: unknown): string {
  if (!isA(error, Error)) return typeof error;
  const name = read(read(error, 'constructor'), 'name');
  return typeof name === 'string' && name.length > 0 ? cleanText(name, MAX_TYPE) : 'Error';
}

const MAX_TYPE = 100;
