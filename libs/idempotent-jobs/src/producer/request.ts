import { InvalidPayloadError, UsageError } from '../operation/errors.js';
import { canonicalRequest, fingerprintOf, toJsonText } from '../operation/json.js';
import { assertIdentity, jobIdOf, jobNameProblem, type OperationIdentity } from '../operation/identity.js';
import { messageOf } from '../operation/thrown.js';
import { isEncrypted, looksEncrypted, payloadBinding } from '../ledger/encryption/encryption.js';
import type { QueueServices } from './acceptance.js';
import { deadlineProblem } from '../operation/job.js';
import { MAX_PRIORITY, type RequestOptions } from './enqueue.options.js';
import type { RequestedOperation } from './operation.store.js';

/**
 * Checks a request and gives it its identity. Nothing is written.
 *
 * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError, InvalidPayloadError, UsageError
 */
export function requestOperation(
  queue: string,
  name: string,
  payload: unknown,
  options: RequestOptions,
  { tenants, encryption, options: rules }: Pick<QueueServices, 'tenants' | 'encryption' | 'options'>,
): RequestedOperation {
  const tenantId = tenants.assert(options.tenantId);
  const identity = assertIdentity({ tenantId, operationKey: options.operationKey });
  const nameProblem = jobNameProblem(name);
  if (nameProblem !== undefined) throw new UsageError(nameProblem);
  assertSchedule(options);
  const text = toJsonText(`payload of job "${name}"`, payload);
  assertSize(name, text, rules.enqueue.maxPayloadBytes);
  // Parsed back, so that the hashed value is what the worker will read: without Dates, undefined and class instances.
  const plain: unknown = JSON.parse(text);
  if (isEncrypted(plain)) throw new InvalidPayloadError(looksEncrypted(`The payload of job "${name}"`));
  return {
    ...identity,
    queue,
    jobName: name,
    jobId: jobIdOf(identity),
    fingerprint: fingerprint(identity, name, plain),
    payload: encryption.encrypt(text, payloadBinding(identity)),
    priority: options.priority,
    delayMs: options.delayMs,
    deadline: options.deadline,
    trace: traceText(rules.traceContext),
    retryPolicy: knownPolicy(options.retryPolicy, rules.retryPolicies),
  };
}

function knownPolicy(name: string | undefined, policies: ReadonlyMap<string, unknown>): string | undefined {
  if (name === undefined || policies.has(name)) return name;
  throw new UsageError(
    `retryPolicy must be one of forRoot({ retryPolicies }), which has ${[...policies.keys()].map((known) => `"${known}"`).join(', ') || 'none'}, but is ${shown(name)}.`,
  );
}

function assertSchedule({ delayMs, priority, deadline }: RequestOptions): void {
  if (delayMs !== undefined && !(Number.isFinite(delayMs) && delayMs >= 0 && delayMs <= MAX_DELAY_MS)) {
    throw new UsageError(
      `delayMs must be a number of milliseconds from 0 to ten years (${MAX_DELAY_MS}), but is ${shown(delayMs)}.`,
    );
  }
  if (priority !== undefined && !(Number.isInteger(priority) && priority >= 0 && priority <= MAX_PRIORITY)) {
    throw new UsageError(
      `priority must be a whole number from 0 to ${MAX_PRIORITY}, but is ${shown(priority)}.`,
    );
  }
  const problem = deadline === undefined ? undefined : deadlineProblem(deadline);
  if (problem !== undefined) throw new UsageError(`deadline ${problem}, but is ${shown(deadline)}.`);
}

/** A longer delay is a wrong unit; much longer ones are beyond the dates of Postgres. */
const MAX_DELAY_MS = 10 * 365 * 24 * 60 * 60 * 1000;

/** Shows a wrong value in an error message, so that "5" differs from 5. */
function shown(value: unknown): string {
  return typeof value === 'string' ? `the string ${JSON.stringify(value)}` : String(value);
}

function assertSize(name: string, text: string, maxBytes: number): void {
  // A UTF-16 unit takes at most three bytes in UTF-8, so a short enough text need not be counted.
  if (text.length * 3 <= maxBytes) return;
  const bytes = Buffer.byteLength(text);
  if (bytes <= maxBytes) return;
  throw new InvalidPayloadError(
    `The payload of job "${name}" has ${bytes} bytes; at most ${maxBytes} are allowed. Store the data elsewhere and enqueue a reference to it, or raise forRoot({ enqueue: { maxPayloadBytes } }).`,
  );
}

function fingerprint(identity: OperationIdentity, name: string, payload: unknown): string {
  try {
    return fingerprintOf(canonicalRequest(identity, name, payload));
  } catch (cause) {
    throw new InvalidPayloadError(
      `The payload of job "${name}" cannot be fingerprinted: ${messageOf(cause)}`,
      [],
      cause,
    );
  }
}

function traceText(traceContext: (() => unknown) | undefined): string | undefined {
  const trace = traceContext?.();
  return trace === undefined ? undefined : JSON.stringify(trace);
}
