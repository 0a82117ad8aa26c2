import { describe, expect, it } from 'vitest';
import {
  isConnectionTrouble,
  namedFailure,
  NoAnswerError,
  NoConnectionError,
  sqlStateOf,
} from './no-connection.js';

const ofPostgres = (code: string): Error =>
  Object.assign(new Error('said by Postgres'), { code, severity: 'ERROR' });

describe('what a failed statement is called', () => {
  it('an error of Postgres stays what it is, whatever its text', () => {
    const error = Object.assign(ofPostgres('23505'), { message: 'Connection terminated unexpectedly' });
    expect(namedFailure(error)).toBe(error);
    expect(isConnectionTrouble(error)).toBe(false);
  });

  it.each([
    ['a refused connection', Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })],
    ['a lost connection', new Error('Connection terminated unexpectedly')],
    ['a pool that has ended', new Error('Cannot use a pool after calling end on the pool')],
    ['a code that only looks like a SQLSTATE', Object.assign(new Error('no'), { code: 'EPERM' })],
    ['no error at all', undefined],
  ])('%s says that nobody answered', (_what, thrown) => {
    expect(namedFailure(thrown)).toBeInstanceOf(NoConnectionError);
  });

  it('a bug stays a bug', () => {
    const bug = new TypeError('undefined is not a function');
    expect(namedFailure(bug)).toBe(bug);
  });
});

describe('isConnectionTrouble', () => {
  it.each([
    ['08000', true],
    ['08006', true],
    ['57P01', true],
    ['57P02', true],
    ['57P03', true],
    ['53300', true],
    ['57014', false],
    ['40001', false],
    ['23505', false],
    ['22021', false],
    ['42P01', false],
    ['XX000', false],
  ])('%s: %s', (code, isOne) => {
    expect(isConnectionTrouble(ofPostgres(code))).toBe(isOne);
  });

  it('a statement without an answer is', () => {
    expect(isConnectionTrouble(new NoAnswerError(10))).toBe(true);
  });

  it.each([
    [new Error('Connection terminated')],
    [{ code: '57P01' }],
    [undefined],
    [null],
    [Object.create(null)],
  ])('is not told by words or fields that anybody can write: %o', (thrown) => {
    expect(isConnectionTrouble(thrown)).toBe(false);
    expect(sqlStateOf(thrown)).toBeUndefined();
  });
});
