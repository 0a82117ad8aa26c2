import type { SchemaStep } from '../migrations.js';

/** Holds the place of version 4. */
export const CREATE_DOUBT: SchemaStep = {
  version: 4,
  name: 'doubt',
  sql: 'SELECT 1',
};
