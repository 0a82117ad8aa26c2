import { DeadLetterRefusedError } from '../operation/errors.js';

/** Why something cannot be done to a letter or a redrive, and what can be done instead. */
const REASONS: Readonly<Record<string, string>> = {
  resolved: 'it is resolved already',
  no_identity: 'it has no tenant or operation key. Give it one by hand with redriveEdited(), or discard it',
  conflict:
    'its key belongs to another request, which is untouched. Give it a key of its own with redriveEdited(), or discard it',
  under_way: 'its operation is under way',
  in_doubt: 'nobody knows whether its effect happened. Find out, and resolve it as applied or as not applied',
  not_in_doubt: 'its operation is not in doubt: its effect did not happen. Redrive it, or discard it',
  completed: 'its operation has completed. Redriving it closes the letter and runs nothing',
  no_payload: 'its payload was not kept. Give one with redriveEdited(), or discard it',
  deadline_passed: 'the deadline its producer gave has passed. Give another: { deadline }',
  redrive_ended: 'it is not running any more',
};

/** @param reason a verdict of the ledger */
export function refused(id: string, reason: string): DeadLetterRefusedError {
  return new DeadLetterRefusedError(reason, `${id}: ${REASONS[reason] ?? reason}. Nothing was changed.`, {
    id,
  });
}

export function redriveRunning(queue: string): DeadLetterRefusedError {
  return new DeadLetterRefusedError(
    'redrive_running',
    `A redrive of queue "${queue}" is running, and only one may run at a time. Wait for it, or cancel it. Nothing was changed.`,
    { queue },
  );
}
