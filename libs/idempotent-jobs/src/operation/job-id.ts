import { hash } from 'node:crypto';
import { cleanText } from './clean-text.js';

/** A job id as a dead letter stores it. It is part of an index, whose entries must be short. */
export function storableJobId(jobId: string): string {
  const text = cleanText(jobId);
  if (text.length <= MAX_JOB_ID_LENGTH) return text;
  return `${text.slice(0, MAX_JOB_ID_LENGTH - 44).toWellFormed()}-${hash('sha256', jobId, 'base64url')}`;
}

/** Why an operation cannot be recorded under a job's id. Undefined when it can. The text does not contain the id. */
export function jobIdProblem(jobId: string): string | undefined {
  if (jobId.length > MAX_JOB_ID_LENGTH)
    return `The job id has ${jobId.length} characters; at most ${MAX_JOB_ID_LENGTH} are allowed.`;
  return cleanText(jobId) === jobId ? undefined : 'The job id holds a NUL or a malformed character.';
}

/** Far below the limit of a Postgres index entry (2,704 bytes), even in four-byte characters. */
const MAX_JOB_ID_LENGTH = 255;
