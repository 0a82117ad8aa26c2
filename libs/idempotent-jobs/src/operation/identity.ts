import { hash, randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { InvalidIdentityError } from './errors.js';
import { STEP_MARK } from './origin.js';

/** Identifies an operation: one business effect of one tenant. */
export interface OperationIdentity {
  /** 1 to 255 characters, no control characters. */
  readonly tenantId: string;
  /** Names the effect, e.g. `charge:order-17:1`. 1 to 400 characters, no control characters. */
  readonly operationKey: string;
}

/** Both limits keep the unique index's rows well below Postgres's 2,704 bytes per entry, also in four-byte characters. */
const MAX_TENANT_ID_LENGTH = 255;
export const MAX_OPERATION_KEY_LENGTH = 400;
export const MAX_JOB_NAME_LENGTH = 255;

/** What is wrong with a tenant id, or undefined. The value itself is never in the text. */
export function tenantIdProblem(value: unknown): string | undefined {
  return textProblem('tenant id', value, MAX_TENANT_ID_LENGTH);
}

/** What is wrong with an operation key, or undefined. */
export function operationKeyProblem(value: unknown): string | undefined {
  return textProblem('operation key', value, MAX_OPERATION_KEY_LENGTH);
}

/** What is wrong with a job's name, or undefined. */
export function jobNameProblem(value: unknown): string | undefined {
  return textProblem('job name', value, MAX_JOB_NAME_LENGTH);
}

/** What is wrong with a step's name, or undefined. */
export function stepNameProblem(name: unknown): string | undefined {
  const problem = textProblem('name of a step', name, MAX_STEP_NAME_LENGTH);
  return problem ?? ((name as string).includes('/') ? 'The name of a step holds a "/".' : undefined);
}

const MAX_STEP_NAME_LENGTH = 100;

/**
 * The identity of a step of an operation, or of another step.
 *
 * @throws InvalidIdentityError if both names together are too long
 */
export function stepIdentity({ tenantId, operationKey }: OperationIdentity, name: string): OperationIdentity {
  const stepKey = `${operationKey}${STEP_MARK}${name}`;
  if (stepKey.length > MAX_OPERATION_KEY_LENGTH)
    throw new InvalidIdentityError(
      `The key of an operation and the name of its step have ${operationKey.length + name.length} characters together; at most ${MAX_OPERATION_KEY_LENGTH - 1} are allowed.`,
    );
  return { tenantId, operationKey: stepKey };
}

/** An operation, or one of its steps. */
export interface OperationName extends OperationIdentity {
  /**
   * The step's name; for a step inside of another one, both names with "/" between. Undefined means the operation itself.
   */
  readonly step?: string | undefined;
}

/**
 * The identity under which the ledger keeps an operation, or its named step.
 *
 * @throws InvalidIdentityError that names the wrong part and what is allowed
 */
export function assertName(name: OperationName): OperationIdentity {
  const identity = assertIdentity(name);
  const { step } = name;
  if (step === undefined) return identity;
  const names: unknown[] = typeof step === 'string' ? step.split('/') : [step];
  return names.reduce<OperationIdentity>((parent, own) => {
    const problem = stepNameProblem(own);
    if (problem !== undefined) throw new InvalidIdentityError(problem);
    return stepIdentity(parent, own as string);
  }, identity);
}

/** @throws InvalidIdentityError that names the wrong part and what is allowed */
export function assertIdentity(identity: { tenantId: unknown; operationKey: unknown }): OperationIdentity {
  const problem = tenantIdProblem(identity.tenantId) ?? operationKeyProblem(identity.operationKey);
  if (problem !== undefined) throw new InvalidIdentityError(problem);
  return identity as OperationIdentity;
}

/**
 * A digest of tenant and key: 43 URL-safe characters that are the same on every attempt and in every process. It is the
 * idempotency key that services get, and the body of the BullMQ job id.
 */
export function operationDigest(identity: OperationIdentity): string {
  return hash('sha256', identityKeyOf(identity), 'base64url');
}

/** Tenant and key as one text, for maps. The tenant's length keeps the parts apart. */
export function identityKeyOf({ tenantId, operationKey }: OperationIdentity): string {
  return `${tenantId.length}:${tenantId}${operationKey}`;
}

/** BullMQ job ids must not contain ":" and must not be integers; the prefix makes even an all-digit digest valid. */
export function jobIdOf(identity: OperationIdentity): string {
  return `op-${operationDigest(identity)}`;
}

function textProblem(what: string, value: unknown, maxLength: number): string | undefined {
  if (typeof value !== 'string')
    return `The ${what} must be a string, but is ${value === null ? 'null' : typeof value}.`;
  if (value.length === 0) return `The ${what} is empty.`;
  if (value.trim() !== value) return `The ${what} begins or ends with white space.`;
  if (value.length > maxLength)
    return `The ${what} has ${value.length} characters; at most ${maxLength} are allowed.`;
  // Rejects control characters and lone surrogates: Postgres refuses NUL, and UTF-8 cannot express lone surrogates.
  if (/\p{Cc}/u.test(value) || !value.isWellFormed())
    return `The ${what} holds control or malformed characters.`;
  return undefined;
}

/**
 * Makes run ids from host, process and a running number, e.g. `web-3:4711:x7Kq/182`. The random part distinguishes a
 * restarted container, which may get the same host name and process id, from its predecessor.
 */
export function runIds(): () => string {
  const process_ = `${hostname()}:${process.pid}:${randomBytes(3).toString('base64url')}`;
  let run = 0;
  return () => {
    run += 1;
    return `${process_}/${run}`;
  };
}
