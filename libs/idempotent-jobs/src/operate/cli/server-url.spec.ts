import { describe, expect, it } from 'vitest';
import { serverUrl } from './server-url.js';
import { WrongUsage } from './wrong-usage.js';

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
