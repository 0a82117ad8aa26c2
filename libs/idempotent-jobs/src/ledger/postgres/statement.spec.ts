import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { type Call, inMs, ms, rowsOf, type Statement, statement } from './statement.js';

const GREET = statement(
  'greet',
  `SELECT :name::text, ':' AS colon, :many + :name, now()::text -- Note: none`,
);

describe('a statement', () => {
  it('numbers its parameters in the order in which its text first names them', () => {
    expect(GREET.text).toBe(`SELECT $1::text, ':' AS colon, $2 + $1, now()::text -- Note: none`);
    expect(GREET.with({ many: 2, name: 'a' }).values()).toEqual(['a', 2]);
  });

  it('is given all its parameters and no other, or does not compile', () => {
    expectTypeOf(GREET).toEqualTypeOf<Statement<'name' | 'many'>>();
    // @ts-expect-error One is missing.
    const call: Call = GREET.with({ name: 'a' });
    expect(() => call.values()).toThrow('Statement "greet" has no value for :many');
    // @ts-expect-error One is misspelt.
    GREET.with({ name: 'a', mny: 2 });
  });

  it('writes arrays as Postgres reads them', () => {
    const call = statement('all', 'SELECT :all').with({
      all: [
        'plain',
        '',
        'NULL',
        'with "quotes" and \\',
        '{a,b}',
        null,
        undefined,
        1.5,
        Infinity,
        false,
        new Date(0),
      ],
    });
    expect(call.values()).toEqual([
      String.raw`{"plain","","NULL","with \"quotes\" and \\","{a,b}",NULL,NULL,1.5,Infinity,false,"1970-01-01T00:00:00.000Z"}`,
    ]);
    expect(statement('none', 'SELECT :all').with({ all: [] }).values()).toEqual(['{}']);
  });

  it('is known by name through the fragments that it is made of', () => {
    const input = statement(
      'input',
      `SELECT ${ms('a - :since')}, ${inMs(':waitMs::float8')} FROM ${rowsOf('a', 'tenantId text', 'token bigint')}`,
    );
    expectTypeOf(input).toEqualTypeOf<Statement<'since' | 'waitMs' | 'tenantId' | 'token'>>();
    expect(input.text).toBe(
      `SELECT EXTRACT(EPOCH FROM a - $1)::float8 * 1000, clock_timestamp() + $2::float8 * interval '1 millisecond' ` +
        `FROM unnest((SELECT $3::text[]), (SELECT $4::bigint[])) WITH ORDINALITY AS a (tenant_id, token, n)`,
    );
  });

  it('asks for its values when there is a connection, where they are given by a function', () => {
    let asked = 0;
    const call = GREET.with(() => ({ name: 'a', many: (asked += 1) }));
    expect(asked).toBe(0);
    expect(call.values()).toEqual(['a', 1]);
  });
});

const SOURCE = fileURLToPath(new URL('../../', import.meta.url));
const DECLARATION = /^(export )?const ([A-Z_]+) = statement\(\s*'([a-z_]+)'/gm;

const declared = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.spec.ts'))
  .flatMap((file) =>
    [...readFileSync(SOURCE + file, 'utf8').matchAll(DECLARATION)].map(
      ([, exported, constant = '', name]) => ({
        file,
        isExported: exported !== undefined,
        constant,
        name,
      }),
    ),
  );
// Loaded before the test, which has a time limit: much of the library is loaded with them. Those that are not exported are
// run by the e2e specs of their files.
const exported = await Promise.all(
  declared
    .filter(({ isExported }) => isExported)
    .map(async ({ file, constant }) => {
      const module = (await import(SOURCE + file)) as { readonly [name: string]: Statement };
      return module[constant];
    }),
);

describe('the statements of the library', () => {
  it('have names of their own', () => {
    expect(declared.length).toBeGreaterThan(60);
    expect(new Set(declared.map(({ name }) => name)).size).toBe(declared.length);
  });

  it('name all their parameters', () => {
    expect(exported.length).toBeGreaterThan(15);
    for (const found of exported)
      expect(found?.text, found?.name).not.toMatch(/(?<!:):[a-z]|undefined|\[object/i);
  });
});
