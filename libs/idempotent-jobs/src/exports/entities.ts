// The tables of the ledger as TypeORM entities, for reading.
export { DeadLetterEntity, JobAttemptEntity, JobOutcomeEntity } from '../ledger/entities.js';
