import { ensureSchema, pendingSteps } from '../../ledger/postgres/schema-guard.js';
import { type Command, DRY_RUN } from './command.js';

/** Takes the steps that the ledger's schema lacks, as `forRoot({ migrations: 'run' })` would. */
export const migrate: Command = {
  name: 'migrate',
  summary: 'create the ledger, or bring it to this package’s version',
  options: { 'dry-run': DRY_RUN },
  needsLedger: false,
  async run({ values, database }) {
    const { schema } = database;
    const steps = await pendingSteps(database);
    const dryRun = values.flag('dry-run');
    if (!dryRun) await ensureSchema(database, 'run');
    const names = steps.map(({ version, name }) => `${version} ${name}`);
    const verb = dryRun ? 'Would take' : 'Took';
    return {
      exitCode: 0,
      json: { schema, dryRun, steps: steps.map(({ version, name }) => ({ version, name })) },
      lines: [
        names.length === 0
          ? `The ledger in schema "${schema}" is up to date.`
          : `${verb} ${names.length} steps in schema "${schema}": ${names.join(', ')}.`,
      ],
    };
  },
};
