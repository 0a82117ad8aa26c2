import { IDEMPOTENT_JOBS_MIGRATIONS } from 'nestjs-idempotent-jobs';
import { DataSource } from 'typeorm';
import { CreateShop1767225600001 } from './create-shop.migration.js';

/** Any number that no other advisory lock in this database uses. */
const MIGRATION_LOCK = 7_241_905;

/**
 * Brings a database up to date. An advisory lock makes processes that start together wait for each other: TypeORM has no
 * lock.
 */
export async function migrate(databaseUrl: string): Promise<void> {
  const source = await new DataSource({
    type: 'postgres',
    url: databaseUrl,
    migrations: [...IDEMPOTENT_JOBS_MIGRATIONS, CreateShop1767225600001],
  }).initialize();
  try {
    const lock = source.createQueryRunner();
    await lock.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
    await source.runMigrations();
  } finally {
    // This closes the connection, which releases the lock.
    await source.destroy();
  }
}
