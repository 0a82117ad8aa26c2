import { hostname } from 'node:os';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvalidIdentityError } from './errors.js';
import {
  assertIdentity,
  identityKeyOf,
  jobIdOf,
  operationDigest,
  operationKeyProblem,
  runIds,
  tenantIdProblem,
} from './identity.js';

const checks = [
  { part: 'tenant id', problemOf: tenantIdProblem, longest: 255 },
  { part: 'operation key', problemOf: operationKeyProblem, longest: 400 },
];

const controls = [
  ...Array.from({ length: 0x20 }, (_, code) => code),
  ...Array.from({ length: 0x21 }, (_, offset) => 0x7f + offset),
];

describe.each(checks)('$part', ({ part, problemOf, longest }) => {
  it.each(['a', 'acme', 'charge:order-17:1', 'Zürich', '東京', 'with space inside', '🚀', '0', '__proto__'])(
    'may be %j',
    (value) => {
      expect(problemOf(value)).toBeUndefined();
    },
  );

  it.each([
    [undefined, 'must be a string, but is undefined'],
    [null, 'must be a string, but is null'],
    [17, 'must be a string, but is number'],
    [{}, 'must be a string, but is object'],
    [['acme'], 'must be a string, but is object'],
    ['', 'is empty'],
    [' acme', 'begins or ends with white space'],
    ['acme\u00a0', 'begins or ends with white space'],
    ['\n', 'begins or ends with white space'],
  ])('may not be %j: it says what is wrong', (value, problem) => {
    expect(problemOf(value)).toBe(`The ${part} ${problem}.`);
  });

  it(`may have ${longest} characters, and one more is refused with both numbers`, () => {
    expect(problemOf('x'.repeat(longest))).toBeUndefined();
    expect(problemOf('x'.repeat(longest + 1))).toBe(
      `The ${part} has ${longest + 1} characters; at most ${longest} are allowed.`,
    );
  });

  it.each(controls)('may not hold control character %i', (code) => {
    expect(problemOf(`a${String.fromCodePoint(code)}b`)).toBe(
      `The ${part} holds control or malformed characters.`,
    );
  });

  it.each(['a\ud800b', 'a\udfffb', 'a\udc00\ud800b'])(
    'may not hold half of a surrogate pair (%j)',
    (value) => {
      expect(problemOf(value)).toBe(`The ${part} holds control or malformed characters.`);
    },
  );

  it('is never repeated in what is said about it', () => {
    expect(problemOf(`${'s3cret '.repeat(100)}\0`)).not.toContain('s3cret');
  });
});

describe('assertIdentity', () => {
  it('returns an identity that is right', () => {
    const identity = { tenantId: 'acme', operationKey: 'charge:1' };
    expect(assertIdentity(identity)).toBe(identity);
  });

  it.each([
    [{ tenantId: '', operationKey: 'charge:1' }, 'The tenant id is empty.'],
    [{ tenantId: 'acme', operationKey: undefined }, 'The operation key must be a string, but is undefined.'],
    [{ tenantId: null, operationKey: '' }, 'The tenant id must be a string, but is null.'],
  ])('refuses %o, naming the first part that is wrong', (identity, message) => {
    expect(() => assertIdentity(identity)).toThrow(new InvalidIdentityError(message));
  });
});

describe('operationDigest', () => {
  it('stays what it has always been, since job ids and downstream keys are made of it', () => {
    // printf '4:acmecharge:order-17:1' | openssl dgst -sha256 -binary | base64, in the URL-safe alphabet
    expect(operationDigest({ tenantId: 'acme', operationKey: 'charge:order-17:1' })).toBe(
      'ObpRZzjtjCnpg9OiZtUZLd-5b8VSXga2LUTVXuMZm5U',
    );
  });

  it('tells tenant "a" with key "bc" from tenant "ab" with key "c"', () => {
    expect(operationDigest({ tenantId: 'a', operationKey: 'bc' })).not.toBe(
      operationDigest({ tenantId: 'ab', operationKey: 'c' }),
    );
  });

  const part = fc.string({ unit: fc.constantFrom('0', '1', '2', ':', 'a'), minLength: 1, maxLength: 13 });

  it('differs wherever tenant or key differ', () => {
    const identity = fc.record({ tenantId: part, operationKey: part });
    fc.assert(
      fc.property(identity, identity, (one, other) => {
        fc.pre(one.tenantId !== other.tenantId || one.operationKey !== other.operationKey);
        expect(identityKeyOf(one)).not.toBe(identityKeyOf(other));
        expect(operationDigest(one)).not.toBe(operationDigest(other));
      }),
    );
  });

  it('differs wherever the same text is divided into tenant and key at another place', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('1', '2', ':'), minLength: 3, maxLength: 30 }),
        (text) => {
          const keys = Array.from({ length: text.length - 1 }, (_, index) =>
            identityKeyOf({ tenantId: text.slice(0, index + 1), operationKey: text.slice(index + 1) }),
          );
          expect(new Set(keys).size).toBe(keys.length);
        },
      ),
    );
  });
});

describe('jobIdOf', () => {
  it('gives what BullMQ takes as a job id: no ":" and no integer', () => {
    const any = fc.string({ minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(any, any, (tenantId, operationKey) => {
        const jobId = jobIdOf({ tenantId, operationKey });
        expect(jobId).toMatch(/^op-[\w-]{43}$/);
        expect(Number(jobId)).toBeNaN();
      }),
    );
  });

  it('gives the same id on every call, and another for another tenant', () => {
    const id = jobIdOf({ tenantId: 'acme', operationKey: 'charge:1' });
    expect(jobIdOf({ tenantId: 'acme', operationKey: 'charge:1' })).toBe(id);
    expect(jobIdOf({ tenantId: 'globex', operationKey: 'charge:1' })).not.toBe(id);
  });
});

describe('runIds', () => {
  it('names runs by host and process, and counts them', () => {
    const next = runIds();
    const [first, second, third] = [next(), next(), next()];
    const process_ = first.slice(0, first.lastIndexOf('/'));
    expect([first, second, third]).toEqual([`${process_}/1`, `${process_}/2`, `${process_}/3`]);
    expect(process_.startsWith(`${hostname()}:${process.pid}:`)).toBe(true);
  });

  it('keeps two processes apart that have the same host name and process id', () => {
    const names = Array.from({ length: 20 }, () => runIds()());
    expect(new Set(names).size).toBe(20);
  });

  it('counts for each process on its own', () => {
    const [one, other] = [runIds(), runIds()];
    one();
    expect(one()).toMatch(/\/2$/);
    expect(other()).toMatch(/\/1$/);
  });
});
