import { describe, expect, it } from 'vitest';
import { WrongUsage } from './command.js';
import { redactor, serverUrl } from './connect.js';

describe('redactor', () => {
  it.each([
    ['a URL of the environment', 'cannot reach postgres://ada:hunter2@db/shop', 'cannot reach ***'],
    ['a password alone', 'password hunter2 is wrong', 'password *** is wrong'],
    [
      'a password inside another URL',
      'redis://:secret@cache:6379 is down',
      'redis://:***@cache:6379 is down',
    ],
    [
      'a password with an at sign',
      'postgres://ada:p@ss@db/shop is down',
      'postgres://ada:***@db/shop is down',
    ],
    ['nothing to hide', 'postgres://db:5432/shop is down', 'postgres://db:5432/shop is down'],
  ])('hides %s', (_title, text, shown) => {
    expect(redactor({ DATABASE_URL: 'postgres://ada:hunter2@db/shop' })(text)).toBe(shown);
  });

  it('hides a password as it stands in the URL, decoded, and as a parameter', () => {
    const redact = redactor({
      DATABASE_URL: 'postgres://ada:hunter%2F2@db/shop',
      REDIS_URL: 'redis://cache:6379?password=letmein',
      PGPASSWORD: 'opensesame',
    });
    expect(redact('hunter%2F2 hunter/2 letmein opensesame')).toBe('*** *** *** ***');
  });

  it.each(['hunter2@rest', 'hunter2/rest', 'hunter2?rest', 'hunter2#rest', '1234#hunter2@rest', 'hun%zzter'])(
    'hides password %s, which is not escaped, and all its pieces',
    (password) => {
      const redact = redactor({ DATABASE_URL: `postgres://ada:${password}@db:5432/shop` });
      expect(redact(password)).toBe('***');
      for (const piece of password.split(/[@/?#]/)) expect(redact(`say ${piece}`)).toBe('say ***');
      expect(redact('db:5432 is down')).toBe('db:5432 is down');
    },
  );

  it('hides the whole of a URL that cannot be read', () => {
    const redact = redactor({ DATABASE_URL: 'hunter2:hunter2' });
    expect(redact('What is hunter2:hunter2?')).toBe('What is ***?');
  });

  it('leaves words alone that a short password would tear apart', () => {
    expect(redactor({ DATABASE_URL: 'postgres://ada:re@db/shop' })('not reachable')).toBe('not reachable');
  });
});

const read = (text: string): URL => serverUrl('REDIS_URL', text, /^rediss?:$/, 'redis://host:6379');

describe('serverUrl', () => {
  it('reads what it is given, escaped characters and options included', () => {
    expect(read('redis://ada:a%40b%2Fc@cache:6379/2?family=6')).toMatchObject({ host: 'cache:6379' });
  });

  it.each([
    [
      'a / of a password as the path',
      'redis://ada:12/secret@cache:6379',
      'REDIS_URL has an "@" behind its host',
    ],
    [
      'a ? of a password as options',
      'redis://ada:12?secret@cache:6379',
      'REDIS_URL has an "@" behind its host',
    ],
    [
      'a # of a password as a hash',
      'redis://ada:12#secret@cache:6379',
      'REDIS_URL has an "@" behind its host',
    ],
    [
      'an @ and a / of a password',
      'redis://ada:x@secret/y@cache:6379',
      'REDIS_URL has an "@" behind its host',
    ],
    ['an escape that is none', 'redis://ada:secret%zz@cache:6379', 'REDIS_URL has a "%"'],
    ['what is no URL', 'secret', 'REDIS_URL is not a URL of the form redis://host:6379'],
    ['another kind of URL', 'postgres://ada:secret@cache', 'REDIS_URL is not a URL'],
  ])('refuses what takes %s, and quotes nothing of it', (_title, text, message) => {
    const reading = () => read(text);
    expect(reading).toThrow(WrongUsage);
    expect(reading).toThrow(message);
    expect(reading).not.toThrow(/secret/);
  });
});
