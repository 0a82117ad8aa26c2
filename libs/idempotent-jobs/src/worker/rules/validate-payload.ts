import { plainToInstance } from 'class-transformer';
import { validate, type ValidationError } from 'class-validator';
import { InvalidPayloadError } from '../../operation/errors.js';
import { errorTypeOf } from '../../tracing/attributes.js';

/** A class-validator DTO. */
export type PayloadClass = new (...args: any[]) => object;

/** What is done with a job's payload: it is validated, accepted as it is, or refused because its job name is not listed. */
export type PayloadRule =
  | { readonly kind: 'validated'; readonly dto: PayloadClass }
  | { readonly kind: 'any' }
  | { readonly kind: 'unlisted' };

export const ANY_PAYLOAD: PayloadRule = { kind: 'any' };

/** A payload after the check. */
export type Validated =
  | { readonly kind: 'valid'; readonly payload: unknown }
  | { readonly kind: 'invalid'; readonly error: InvalidPayloadError };

/** Applies a rule to a payload. Only a DTO takes a promise. */
export function checkPayload(
  rule: PayloadRule,
  jobName: string,
  payload: unknown,
): Validated | Promise<Validated> {
  switch (rule.kind) {
    case 'any':
      return { kind: 'valid', payload };
    case 'validated':
      return validatePayload(rule.dto, jobName, payload);
    case 'unlisted':
      return refusal(
        `Job "${jobName}" is none that the processor's payload option lists, so nothing validates its payload. List its DTO there, or let such jobs through: unlistedPayloads: "accept".`,
        ['the job name is not listed'],
      );
    default:
      return rule satisfies never;
  }
}

/**
 * Turns a payload into an instance of its DTO and validates it. The error names each problem by its path and never a
 * value.
 */
export async function validatePayload(
  dto: PayloadClass,
  jobName: string,
  payload: unknown,
): Promise<Validated> {
  if (payload === null || typeof payload !== 'object' || Array.isArray(payload)) {
    return invalid(jobName, dto, [`the payload must be an object, but is ${describe(payload)}`]);
  }
  try {
    const instance = plainToInstance(dto, payload);
    const errors = await validate(instance, { forbidUnknownValues: false });
    return errors.length === 0
      ? { kind: 'valid', payload: instance }
      : invalid(
          jobName,
          dto,
          errors.flatMap((error) => problemsOf(error)),
        );
  } catch (cause) {
    // Its message may quote the payload, so only its type is told.
    return invalid(jobName, dto, [`validation itself failed with ${errorTypeOf(cause)}`]);
  }
}

function invalid(jobName: string, dto: PayloadClass, problems: string[]): Validated {
  return refusal(
    `The payload of job "${jobName}" is not a valid ${dto.name}: ${problems.join('; ')}`,
    problems,
  );
}

function refusal(message: string, problems: string[]): Validated {
  return { kind: 'invalid', error: new InvalidPayloadError(message, problems) };
}

/** `items.0.quantity: quantity must not be less than 1`, for every constraint at any depth. */
function problemsOf(error: ValidationError, path = ''): string[] {
  const here = path === '' ? error.property : `${path}.${error.property}`;
  const own = Object.values(error.constraints ?? {}).map((constraint) => `${here}: ${constraint}`);
  return [...own, ...(error.children ?? []).flatMap((child) => problemsOf(child, here))];
}

function describe(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}
