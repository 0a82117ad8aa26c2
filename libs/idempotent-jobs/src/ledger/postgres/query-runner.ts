import type { DataSource, QueryRunner } from 'typeorm';

/** The DataSource of a QueryRunner, which was called its connection before TypeORM 1.0. */
export function dataSourceOf(runner: QueryRunner): DataSource {
  return 'dataSource' in runner ? runner.dataSource : (runner as { connection: DataSource }).connection;
}
