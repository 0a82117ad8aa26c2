import { shownKey } from './origin.js';

/**
 * How messages tell people to start the command line. It names the package, because `npx` alone would run any package that
 * was published under the command's name where ours is not installed.
 */
export const PROGRAM = 'npx -p nestjs-idempotent-jobs idempotent-jobs';

/**
 * The base of every error that this library throws. `code` is stable and meant for programs. The message is meant for
 * people: what happened, to which operation, and what to do next. Neither contains payloads or secrets.
 */
export class IdempotentJobsError extends Error {
  constructor(
    /** Stable, machine-readable name of the error, e.g. `OPERATION_CONFLICT`. */
    readonly code: string,
    message: string,
    options?: { cause?: unknown; data?: Readonly<Record<string, unknown>> },
  ) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.data = options?.data ?? {};
  }

  /** The ids that the message names, for logs and programs. */
  readonly data: Readonly<Record<string, unknown>>;
}

interface Named {
  readonly tenantId: string;
  readonly operationKey: string;
}

/** Options, decorators or the database schema are not what the module needs. Thrown by decorators and at boot. */
export class ConfigurationError extends IdempotentJobsError {
  constructor(message: string, cause?: unknown) {
    super('CONFIGURATION', message, { cause });
  }
}

/** A public method was called in a way that cannot work. */
export class UsageError extends IdempotentJobsError {
  constructor(message: string) {
    super('USAGE', message);
  }
}

/** A tenant id or operation key that is missing, empty, too long or holds control characters. */
export class InvalidIdentityError extends IdempotentJobsError {
  constructor(message: string) {
    super('INVALID_IDENTITY', message);
  }
}

/** No tenant is known where one is needed. */
export class TenantMissingError extends IdempotentJobsError {
  constructor(message: string) {
    super('TENANT_MISSING', message);
  }
}

/** The given tenant is not the tenant of the surrounding frame. */
export class TenantMismatchError extends IdempotentJobsError {
  constructor(message: string, data: Readonly<Record<string, unknown>>) {
    super('TENANT_MISMATCH', message, { data });
  }
}

/** JSON or Postgres cannot store the payload, or it does not match the processor's DTO. */
export class InvalidPayloadError extends IdempotentJobsError {
  constructor(message: string, problems: readonly string[] = [], cause?: unknown) {
    super('INVALID_PAYLOAD', message, { cause, data: { problems } });
  }
}

/** The operation key belongs to an operation with another payload, job name or queue. Nothing was enqueued. */
export class OperationConflictError extends IdempotentJobsError {
  constructor(tenantId: string, key: string) {
    const operationKey = shownKey(key);
    super(
      'OPERATION_CONFLICT',
      `Operation "${operationKey}" of tenant "${tenantId}" already exists with another payload, job name or queue; nothing was enqueued or run. ` +
        `Use a key that names the effect (for example with a version: "${operationKey}:2"), or send the payload it was first enqueued with.`,
      { data: { tenantId, operationKey } },
    );
  }
}

/** The operation was given up, and requesting it again runs nothing. */
export class OperationDeadError extends IdempotentJobsError {
  constructor({ tenantId, operationKey: key }: Named) {
    const operationKey = shownKey(key);
    super(
      'OPERATION_DEAD',
      `Operation "${operationKey}" of tenant "${tenantId}" was given up; retrying its job runs nothing. Its evidence is in dead_letters: redrive it from there.`,
      { data: { tenantId, operationKey } },
    );
  }
}

/** An attempt ended without telling whether its effect happened, and the effect must not be repeated. */
export class OperationInDoubtError extends IdempotentJobsError {
  constructor(
    { tenantId, operationKey: key }: Named,
    /** When the service can be asked, in ms from now: call again then. Undefined when a person has to find out. */
    readonly retryAfterMs?: number | undefined,
    cause?: unknown,
  ) {
    const operationKey = shownKey(key);
    const what =
      retryAfterMs === undefined
        ? 'Find out, and resolve its dead letter as applied or as not applied.'
        : `The service is asked in ${Math.ceil(retryAfterMs)} ms.`;
    super(
      'OPERATION_IN_DOUBT',
      `Operation "${operationKey}" of tenant "${tenantId}" is in doubt: an attempt ended without telling whether its effect happened, and its effect must not be repeated. ${what}`,
      { cause, data: { tenantId, operationKey, retryAfterMs } },
    );
  }
}

/** Another caller is running the operation, and has not finished within the time that this caller would wait. */
export class OperationBusyError extends IdempotentJobsError {
  constructor(
    { tenantId, operationKey: key }: Named,
    /** When to call again, in ms from now. */
    readonly retryAfterMs: number,
  ) {
    const operationKey = shownKey(key);
    super(
      'OPERATION_BUSY',
      `Operation "${operationKey}" of tenant "${tenantId}" is being run by another caller. Call again with the same key in ${Math.ceil(retryAfterMs)} ms, or wait longer (waitMs).`,
      { data: { tenantId, operationKey, retryAfterMs } },
    );
  }
}

/**
 * Another transaction is writing the operation, or holds its row, and has not ended within the time that the library waits
 * for it: a second, or some 12 s for `enqueueMany()`. Nothing was written; try again when that transaction has ended.
 */
export class OperationLockedError extends IdempotentJobsError {
  /** When to call again, in ms from now. */
  readonly retryAfterMs = 1000;

  constructor(operations: Named | { readonly queue: string; readonly count: number }, cause: unknown) {
    const who =
      'queue' in operations
        ? `One of ${operations.count} operations of queue "${operations.queue}"`
        : `Operation "${shownKey(operations.operationKey)}" of tenant "${operations.tenantId}"`;
    super(
      'OPERATION_LOCKED',
      `${who} is held by another transaction, which has not ended in the meantime. Nothing was enqueued. Try again when that transaction, most likely of a producer that has enqueued the same key, has committed or rolled back.`,
      { cause, data: { ...operations } },
    );
  }
}

/** {@link OutcomeService.wait} gave up before the operation was settled. The operation goes on. */
export class OutcomeTimeoutError extends IdempotentJobsError {
  constructor(
    { tenantId, operationKey, step }: { tenantId: string; operationKey: string; step?: string | undefined },
    waitedMs: number,
    status: string,
  ) {
    const what = step === undefined ? 'Operation' : `Step "${step}" of operation`;
    super(
      'OUTCOME_TIMEOUT',
      `${what} "${operationKey}" of tenant "${tenantId}" is not settled after ${waitedMs} ms (status: ${status}). It goes on; look it up again later.`,
      { data: { tenantId, operationKey, ...(step !== undefined && { step }), waitedMs, status } },
    );
  }
}

/** There is no dead letter with that id, or no open one of that operation. Nothing was changed. */
export class DeadLetterNotFoundError extends IdempotentJobsError {
  constructor(message: string, data: Readonly<Record<string, unknown>>) {
    super('DEAD_LETTER_NOT_FOUND', message, { data });
  }
}

/** The state of a dead letter, or of a redrive, does not allow the action. Nothing was changed. */
export class DeadLetterRefusedError extends IdempotentJobsError {
  constructor(
    /** Machine-readable reason. */
    readonly reason: string,
    message: string,
    data: Readonly<Record<string, unknown>>,
  ) {
    super('DEAD_LETTER_REFUSED', message, { data: { ...data, reason } });
  }
}

/**
 * An encrypted payload or result cannot be read here: its key is not configured, or it does not authenticate. Nothing is
 * run or answered from it; a delivery is deferred.
 */
export class RecordUnreadableError extends IdempotentJobsError {
  constructor(
    record: { readonly tenantId: string | null; readonly operationKey: string; readonly kind: string },
    /** The key id that the value names. Undefined when it names none. */
    keyId: string | undefined,
    /** Machine-readable reason. */
    readonly reason: 'no_keys' | 'unknown_key' | 'damaged',
  ) {
    const { tenantId, kind } = record;
    const operationKey = shownKey(record.operationKey);
    const what =
      tenantId === null
        ? `The ${kind} of unidentified job "${operationKey}"`
        : `The ${kind} of operation "${operationKey}" of tenant "${tenantId}"`;
    super('RECORD_UNREADABLE', `${what} ${unreadableText(reason, keyId)}`, {
      data: { tenantId, operationKey, kind, keyId, reason },
    });
  }
}

function unreadableText(reason: RecordUnreadableError['reason'], keyId: string | undefined): string {
  const key = keyId === undefined ? 'a key it does not name' : `key "${keyId}"`;
  switch (reason) {
    case 'no_keys':
      return `is encrypted with ${key}, and no keys are configured here. Add them: forRoot({ encryption: { keys, current } }).`;
    case 'unknown_key':
      return `is encrypted with ${key}, which is not configured here. Add it to forRoot({ encryption: { keys } }).`;
    case 'damaged':
      return `is encrypted with ${key}, but does not authenticate: it was changed, or moved here from elsewhere, or the key has other bytes than when it was written. Give the key its bytes back, or restore the record from a backup.`;
    default:
      return reason satisfies never;
  }
}
