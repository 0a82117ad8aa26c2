import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { TypeORMError } from 'typeorm';
import { isA, read } from '../../operation/thrown.js';

/** Errors of TypeORM itself, before or instead of the database's; those of the database are in `driverError`. */
const KINDS = new Map<unknown, FailureKind>([
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
  const kind = KINDS.get(name);
  return kind === undefined ? undefined : { kind, code: String(name) };
}

/** @internal */
export function isTypeOrmName(name: string): boolean {
  return KINDS.has(name);
}
