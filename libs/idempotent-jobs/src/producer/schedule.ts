import type { RepeatOptions } from 'bullmq';
import { UsageError } from '../operation/errors.js';
import { assertIdentity, jobIdOf, type OperationIdentity } from '../operation/identity.js';
import type { RequestOptions } from './enqueue.options.js';

/**
 * When a schedule's iterations run: `every` so many ms, or by a cron `pattern` (in time zone `tz`), but not both.
 * `startDate` and `endDate` are BullMQ's. Its `limit` is left out, because it starts anew whenever the schedule is made
 * again.
 */
export type ScheduleOptions = Pick<RequestOptions, 'operationKey' | 'tenantId' | 'priority' | 'retryPolicy'> &
  Pick<RepeatOptions, 'every' | 'pattern' | 'tz' | 'startDate' | 'endDate'>;

/** A schedule as BullMQ keeps it. */
export interface Schedule extends OperationIdentity {
  /** BullMQ's name for the scheduler. */
  readonly schedulerId: string;
  /** When the next iteration is due. Undefined when `endDate` is reached. */
  readonly nextAt: Date | undefined;
}

/**
 * BullMQ's id of a schedule: a digest of tenant and key. No tenant can replace another's schedule, and the job ids that
 * BullMQ derives from it show whose iterations they are.
 */
export const schedulerIdOf = jobIdOf;

/** The operation of one iteration. Its key contains the time when the iteration was due, not when it ran. */
export function iterationOf(schedule: OperationIdentity, dueAt: Date): OperationIdentity {
  const { tenantId, operationKey } = schedule;
  return { tenantId, operationKey: `${operationKey}:${dueAt.toISOString()}` };
}

/** When the iteration that a job carries was due. Undefined when the job does not belong to that scheduler. */
export function iterationTimeOf(jobId: string | undefined, schedulerId: string): Date | undefined {
  const [kind, scheduler, millis, ...rest] = (jobId ?? '').split(':');
  if (kind !== 'repeat' || scheduler !== schedulerId || rest.length > 0 || !/^\d{1,15}$/.test(millis ?? ''))
    return undefined;
  return new Date(Number(millis));
}

/** @throws UsageError, InvalidIdentityError */
export function assertSchedule(
  { tenantId, operationKey }: OperationIdentity,
  repeat: Omit<ScheduleOptions, 'operationKey' | 'tenantId' | 'priority' | 'retryPolicy'>,
): void {
  const { every, pattern, tz: _tz, startDate: _startDate, endDate: _endDate, ...others } = repeat;
  const [other] = Object.keys(others);
  if (other === 'limit')
    throw new UsageError(
      'schedule() takes no limit: BullMQ counts anew whenever the schedule is made again, which is at every start. Use endDate, or unschedule().',
    );
  if (other !== undefined)
    throw new UsageError(
      `schedule() takes every or pattern, tz, startDate, endDate, priority and retryPolicy, but not ${other}.`,
    );
  if ((every === undefined) === (pattern === undefined))
    throw new UsageError('schedule() takes either every or pattern.');
  if (every !== undefined && !(Number.isInteger(every) && every > 0))
    throw new UsageError(`every must be a whole number of milliseconds, 1 or more, but is ${every}.`);
  assertIdentity(iterationOf({ tenantId, operationKey }, new Date(0)));
}
