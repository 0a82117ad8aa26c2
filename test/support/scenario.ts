import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { inject, onTestFinished, TestRunner } from 'vitest';
import { type Backend, type Place, placeIn, TEMPLATES } from './place.js';

/** The backends there are here. Redis suites are skipped, and said to be, where there is no Redis. */
export const BACKENDS: readonly Backend[] =
  inject('redisUrl') === undefined ? ['postgres'] : ['redis', 'postgres'];

/** A place for one test, in which an application has been: the schemas are there, and no rows. */
export function makePlace(backend: Backend): Promise<Place> {
  return place(backend, TEMPLATES[backend]);
}

/** A place for one test, in which nobody has been. */
export function makeEmptyPlace(backend: Backend): Promise<Place> {
  return place(backend, 'template1');
}

async function place(backend: Backend, template: string): Promise<Place> {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await onServer(`CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY file_copy`);
  // Those of a whole file stay until the server goes.
  if (TestRunner.getCurrentTest() !== undefined)
    onTestFinished(() => onServer(`DROP DATABASE ${name} WITH (FORCE)`));
  return placeIn(name, backend, inject('postgresUrl'), inject('redisUrl'));
}

async function onServer(statement: string): Promise<void> {
  const admin = new Client({ connectionString: inject('postgresUrl') });
  await admin.connect();
  try {
    await admin.query(statement);
  } finally {
    await admin.end();
  }
}

export { dataSourceOf } from './ledger.js';
