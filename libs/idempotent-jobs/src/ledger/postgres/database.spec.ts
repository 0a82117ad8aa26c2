import type { DataSource } from 'typeorm';
import { describe, expect, it } from 'vitest';
import { Database } from './database.js';
import { statement } from './statement.js';

describe('Database.read', () => {
  const database = new Database({ options: { type: 'postgres' } } as DataSource, 'jobs');
  const read = (...rows: object[]): Promise<object[]> =>
    database.read(statement('look', 'SELECT').with({}), {
      query: () => Promise.resolve({ rows, rowCount: rows.length }),
    });

  it('gives rows with properties for columns, and undefined for NULL', async () => {
    const error = { stack_trace: null };
    expect(await read({ id: 1, job_name: 'charge', lease_expires_at: null, error })).toStrictEqual([
      { id: 1, jobName: 'charge', leaseExpiresAt: undefined, error },
    ]);
  });

  it('gives nothing for no rows', async () => {
    expect(await read()).toEqual([]);
  });
});
