import pg from 'pg';
import * as typeorm from 'typeorm';
import { describe, expect, it } from 'vitest';
import { classify } from './classify.js';
import type { FailureKind } from '../../operation/reasons.js';

describe('classify: what pg says without a code', () => {
  it.each<[string, FailureKind, string]>([
    ['timeout exceeded when trying to connect', 'in_doubt', 'pg_connect_timeout'],
    ['Connection terminated due to connection timeout', 'in_doubt', 'pg_connect_timeout'],
    ['Client has encountered a connection error and is not queryable', 'in_doubt', 'pg_connection_lost'],
    ['Client was closed and is not queryable', 'in_doubt', 'pg_connection_lost'],
    ['Cannot use a pool after calling end on the pool', 'in_doubt', 'pg_not_connected'],
    ['Connection terminated', 'in_doubt', 'pg_connection_lost'],
    ['Connection terminated unexpectedly', 'in_doubt', 'pg_connection_lost'],
    ['Query read timeout', 'in_doubt', 'pg_read_timeout'],
  ])('%s: %s, by itself and through TypeORM', (message, kind, reason) => {
    expect(classify(new Error(message))).toEqual({ kind, reason });
    const wrapped = new typeorm.QueryFailedError('SELECT 1', [], new Error(message));
    expect(classify(wrapped)).toEqual({ kind, reason });
  });

  it('is what a pool says that was ended', async () => {
    const pool = new pg.Pool();
    await pool.end();
    const error: unknown = await pool.query('SELECT 1').catch((thrown: unknown) => thrown);
    expect(classify(error)).toEqual({ kind: 'in_doubt', code: 'pg_not_connected' });
  });
});

describe('classify: what TypeORM says itself', () => {
  it.each(['EntityNotFoundError', 'OptimisticLockVersionMismatchError', 'MustBeEntityError'])(
    'does not believe the name %s of an error of another class',
    (name) => {
      expect(classify(Object.assign(new Error('declined'), { name }))).toMatchObject({ kind: 'unknown' });
    },
  );

  it.each<[Error, FailureKind]>([
    [new typeorm.EntityNotFoundError('Order', { id: 1 }), 'permanent'],
    [new typeorm.OptimisticLockVersionMismatchError('Order', 1, 2), 'transient'],
    [new typeorm.CannotExecuteNotConnectedError(), 'transient'],
    [new typeorm.EntityPropertyNotFoundError('price', { targetName: 'Order' } as never), 'programming'],
    [new typeorm.PessimisticLockTransactionRequiredError(), 'programming'],
    [new typeorm.OptimisticLockCanNotBeUsedError(), 'programming'],
    [new typeorm.TransactionNotStartedError(), 'programming'],
    [new typeorm.QueryRunnerAlreadyReleasedError(), 'programming'],
    [new typeorm.UpdateValuesMissingError(), 'programming'],
  ])('%s is %s', (error, kind) => {
    expect(classify(error)).toEqual({ kind, reason: error.constructor.name });
  });
});
