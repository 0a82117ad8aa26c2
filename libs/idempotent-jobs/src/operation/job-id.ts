import { hash } from 'node:crypto';
import { cleanText } from './clean-text.js';

/** A job id as a dead letter keeps it: it has a place in an index, whose entries are short. */
export function storableJobId(jobId: string): string {
  const text = cleanText(jobId);
  if (text.length <= MAX_JOB_ID_LENGTH) return text;
  return `${text.slice(0, MAX_JOB_ID_LENGTH - 44).toWellFormed()}-${hash('sha256', jobId, 'base64url')}`;
}

/** What keeps an operation from being recorded under a job's id, or undefined. The id itself is not in the text. */
export function jobIdProblem(jobId: string): string | undefined {
  if (jobId.length > MAX_JOB_ID_LENGTH)
    return `The job id has ${jobId.length} characters; at most ${MAX_JOB_ID_LENGTH} are allowed.`;
  return cleanText(jobId) === jobId ? undefined : 'The job id holds a NUL or a malformed character.';
}

/** Far below what an entry of a Postgres index may have (2,704 bytes), also in four-byte characters. */
const MAX_JOB_ID_LENGTH = 255;
