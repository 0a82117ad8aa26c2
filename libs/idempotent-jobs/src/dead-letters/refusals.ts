import { DeadLetterRefusedError } from '../operation/errors.js';

/** The reasons for which an action on a letter or a redrive is refused. */
export type Refusal = keyof typeof REASONS;

/** The reasons that lie in the letter and its operation. */
export type Objection = Exclude<Refusal, 'key_taken' | 'redrive_ended'>;

/** For each reason: what is wrong, and what can be done instead. */
const REASONS = {
  resolved: 'it is resolved already',
  no_identity: 'it has no tenant or operation key. Give it one by hand with redriveEdited(), or discard it',
  conflict:
    'its key belongs to another request, which is untouched. Give it a key of its own with redriveEdited(), or discard it',
  under_way: 'its operation is under way',
  in_doubt: 'nobody knows whether its effect happened. Find out, and resolve it as applied or as not applied',
  not_in_doubt: 'its operation is not in doubt: its effect did not happen. Redrive it, or discard it',
  has_completed: 'its operation has completed. Redrive the letter, which closes it and runs nothing',
  no_payload: 'its payload was not kept. Give one with redriveEdited(), or discard it',
  deadline_passed: 'the deadline its producer gave has passed. Give another: { deadline }',
  key_taken:
    'an operation of that key exists already. Look at it; then give another key, or discard the letter',
  redrive_ended: 'it is not running any more',
} as const;

export function refused(id: string, reason: Refusal): DeadLetterRefusedError {
  return new DeadLetterRefusedError(reason, `${id}: ${REASONS[reason]}. Nothing was changed.`, { id });
}

export function redriveRunning(queue: string): DeadLetterRefusedError {
  return new DeadLetterRefusedError(
    'redrive_running',
    `A redrive of queue "${queue}" is running, and only one may run at a time. Wait for it, or cancel it. Nothing was changed.`,
    { queue },
  );
}
