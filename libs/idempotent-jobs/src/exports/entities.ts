// The tables of the ledger as TypeORM entities, to be read.
export { DeadLetterEntity, JobAttemptEntity, JobOutcomeEntity } from '../ledger/entities.js';
