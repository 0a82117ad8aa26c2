import type { Job } from 'bullmq';
import { cleanText } from './clean-text.js';
import { MAX_JOB_NAME_LENGTH } from './identity.js';
import { storableJobId } from './job-id.js';

/** How letters, events and logs name a job. */
export interface JobSubject {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
}

/** Name and id are cut to an operation's limits, because a producer can make them as long as a job's data. */
export function jobSubjectOf({
  queueName,
  name,
  id = '',
}: Pick<Job, 'queueName' | 'name' | 'id'>): JobSubject {
  return { queue: queueName, jobName: cleanText(name, MAX_JOB_NAME_LENGTH), jobId: storableJobId(id) };
}
