import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { TypeORMError } from 'typeorm';
import { isA, read } from '../../operation/thrown.js';

/** What TypeORM says itself, before or instead of the database; what the database said is in a `driverError`. */
const KINDS = new Map<unknown, FailureKind>([
  // There is no such row. Like a 404: whoever expects it later says so by `classify`.
  ['EntityNotFoundError', 'permanent'],
  // Somebody has changed the row since it was read, which the next attempt does anew.
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

/** By its class, and then by its name: a name alone is anybody's word. @internal */
export function byTypeOrmName(error: unknown): Failure | undefined {
  const name = isA(error, TypeORMError) ? read(error, 'name') : undefined;
  const kind = KINDS.get(name);
  return kind === undefined ? undefined : { kind, code: String(name) };
}

/** @internal */
export function isTypeOrmName(name: string): boolean {
  return KINDS.has(name);
}
