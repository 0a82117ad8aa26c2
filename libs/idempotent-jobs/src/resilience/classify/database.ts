import { TypeORMError } from 'typeorm';
import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { isA, read } from '../../operation/thrown.js';

/** https://www.postgresql.org/docs/current/errcodes-appendix.html @internal */
export function bySqlState(error: unknown): Failure | undefined {
  const code = read(error, 'code');
  // Five capitals are not enough: EPERM matches too.
  if (typeof code !== 'string' || !/^[0-9A-Z]{5}$/.test(code) || typeof read(error, 'severity') !== 'string')
    return undefined;
  return { kind: kindOf(code), code: `sql_${code}` };
}

/** The client could not connect, or the server refused the connection. */
const NEVER_CONNECTED = new Set(['08001', '08004']);

function kindOf(code: string): FailureKind {
  // The connection was lost, so it is not known how far the statement got. PgBouncer uses 08P01 for everything.
  if (code.startsWith('08') && !NEVER_CONNECTED.has(code)) return 'in_doubt';
  const isTransient =
    ['40001', '40P01', '55P03', '57P01', '57P02', '57P03'].includes(code) || /^(?:53|08)/.test(code);
  if (isTransient) return 'transient';
  return /^(?:22|23|42)/.test(code) ? 'permanent' : 'unknown';
}

/** Errors of pg and pg-pool that have only a message: neither a code nor a class of their own. */
const MESSAGES = new Map<unknown, string>([
  ['timeout exceeded when trying to connect', 'pg_connect_timeout'],
  ['Connection terminated due to connection timeout', 'pg_connect_timeout'],
  ['Client has encountered a connection error and is not queryable', 'pg_connection_lost'],
  ['Client was closed and is not queryable', 'pg_connection_lost'],
  ['Cannot use a pool after calling end on the pool', 'pg_not_connected'],
  ['Connection terminated', 'pg_connection_lost'],
  ['Connection terminated unexpectedly', 'pg_connection_lost'],
  ['Query read timeout', 'pg_read_timeout'],
]);

/**
 * Some of these messages mean that nothing was sent. But any code can write the same message, so all leave a doubt.
 * @internal
 */
export function byPgMessage(error: unknown): Failure | undefined {
  const code = MESSAGES.get(read(error, 'message'));
  return code === undefined ? undefined : { kind: 'in_doubt', code };
}

/** Errors of TypeORM itself, before or instead of the database's; those of the database are in `driverError`. */
const TYPEORM_KINDS = new Map<unknown, FailureKind>([
  // There is no such row. Like a 404: a processor that expects the row later says so by `classify`.
  ['EntityNotFoundError', 'permanent'],
  // Another transaction has changed the row since it was read; the next attempt reads it again.
  ['OptimisticLockVersionMismatchError', 'transient'],
  ['CannotExecuteNotConnectedError', 'transient'],
  ['CannotGetEntityManagerNotConnectedError', 'transient'],
  ['ConnectionIsNotSetError', 'transient'],
  ...[
    'CannotCreateEntityIdMapError',
    'EntityMetadataNotFoundError',
    'EntityPropertyNotFoundError',
    'FindRelationsNotFoundError',
    'ForbiddenTransactionModeOverrideError',
    'InsertValuesMissingError',
    'LimitOnUpdateNotSupportedError',
    'LockNotSupportedOnGivenDriverError',
    'MissingDeleteDateColumnError',
    'MustBeEntityError',
    'NoVersionOrUpdateDateColumnError',
    'OptimisticLockCanNotBeUsedError',
    'PessimisticLockTransactionRequiredError',
    'QueryRunnerAlreadyReleasedError',
    'SubjectWithoutIdentifierError',
    'TransactionAlreadyStartedError',
    'TransactionNotStartedError',
    'UpdateValuesMissingError',
  ].map((name): [string, FailureKind] => [name, 'programming']),
]);

/** Recognised by its class, then by its name, since any error can have the name. @internal */
export function byTypeOrmName(error: unknown): Failure | undefined {
  const name = isA(error, TypeORMError) ? read(error, 'name') : undefined;
  const kind = TYPEORM_KINDS.get(name);
  return kind === undefined ? undefined : { kind, code: String(name) };
}

/** @internal */
export function isTypeOrmName(name: string): boolean {
  return TYPEORM_KINDS.has(name);
}
