import { describe, expect, it } from 'vitest';
import { ConfigurationError } from '../operation/errors.js';
import { assertWorkerPrefix, prefixOf } from './queue-prefix.js';

const CLUSTER = { isCluster: true };
const ELSEWHERE = [
  ['a client of one server', { isCluster: false }],
  ['options of one server', { url: 'redis://localhost:6379' }],
  ['options that only look like it', { isCluster: 'true' }],
  ['a URL of Postgres', 'postgres://localhost/db'],
  ['nothing', undefined],
  ['null', null],
] as const;

describe('the prefix of a queue', () => {
  it.each(ELSEWHERE)('stays as it is given, or not given, with %s', (_kind, connection) => {
    expect(prefixOf('charges', { connection })).toBeUndefined();
    expect(prefixOf('charges', { connection, prefix: 'shop' })).toBe('shop');
  });

  it('has a hash tag on a Redis Cluster where none is given', () => {
    expect(prefixOf('charges', { connection: CLUSTER })).toBe('{bull}');
    expect(prefixOf('charges-dlq', { connection: CLUSTER, prefix: undefined })).toBe('{bull}');
  });

  it.each(['{shop}', 'shop:{eu}', '{a}{b}', '{a{b}', '}{shop}'])(
    'may be any with a hash tag on a Redis Cluster: %s',
    (prefix) => {
      expect(prefixOf('charges', { connection: CLUSTER, prefix })).toBe(prefix);
    },
  );

  it.each(['shop', '', '{}', '{}}', '{}{shop}', '{shop', 'shop}', '}shop{'])(
    'must not be without one on a Redis Cluster: %j',
    (prefix) => {
      const assemble = (): unknown => prefixOf('charges', { connection: CLUSTER, prefix });
      expect(assemble).toThrow(ConfigurationError);
      expect(assemble).toThrow(`prefix "${prefix}" has no hash tag`);
    },
  );

  it('is left alone where the name of the queue has the hash tag', () => {
    expect(prefixOf('{charges}', { connection: CLUSTER })).toBeUndefined();
    expect(prefixOf('{charges}-dlq', { connection: CLUSTER, prefix: 'shop' })).toBe('shop');
  });

  it('says what to write instead', () => {
    const assemble = (prefix: string) => () => prefixOf('charges', { connection: CLUSTER, prefix });
    expect(assemble('shop')).toThrow(`prefix: '{shop}'`);
    expect(assemble('')).toThrow(`prefix: '{bull}'`);
  });
});

describe('the prefix of a worker', () => {
  const on = (prefix?: string) => ({ name: 'charges', opts: { ...(prefix !== undefined && { prefix }) } });

  it('is that of its queue', () => {
    for (const [worker, queue] of [
      [on(), on()],
      [on(), on('bull')],
      [on('{shop}'), on('{shop}')],
      [on('shop'), undefined],
    ] as const)
      expect(() => assertWorkerPrefix(worker, queue)).not.toThrow();
  });

  it('is refused on a Cluster of its own where it has no hash tag', () => {
    const worker = { name: 'charges', opts: { connection: CLUSTER, prefix: 'bull' } };
    expect(() => assertWorkerPrefix(worker, on())).toThrow('prefix "bull" has no hash tag');
  });

  it.each([
    ['shop', '{bull}'],
    ['{shop}', '{bull}'],
    ['bull', 'shop'],
  ])('is refused where it is %s and that of the queue %s', (worker, queue) => {
    expect(() => assertWorkerPrefix(on(worker), on(queue))).toThrow(
      `has the prefix "${worker}", but the queue has "${queue}"`,
    );
  });
});
