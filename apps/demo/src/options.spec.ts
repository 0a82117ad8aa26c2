import { describe, expect, it } from 'vitest';
import { readOptions, UsageError } from './options.js';

describe('readOptions', () => {
  it('keeps queues in Postgres and loses nothing unless asked', () => {
    expect(readOptions([])).toEqual({
      seed: 1,
      orders: 300,
      backend: 'postgres',
      loseRedis: false,
      json: false,
    });
  });

  it.each([[['--lose-redis']], [['--lose-redis', '--backend', 'redis']]])(
    'keeps the queues on Redis when it is to be lost: %j',
    (args) => {
      expect(readOptions(args)).toMatchObject({ backend: 'redis', loseRedis: true });
    },
  );

  it.each([
    [['--lose-redis', '--backend', 'postgres'], /--lose-redis/],
    [['--backend', 'mysql'], /"mysql"/],
    [['--orders', '9'], /--orders/],
    [['--seed', 'one'], /--seed/],
    [['--flush'], /--flush/],
  ])('refuses %j and says why', (args, reason) => {
    const read = (): unknown => readOptions(args);
    expect(read).toThrow(UsageError);
    expect(read).toThrow(reason);
  });
});
