import { DeadLetterRefusedError } from '../../operation/errors.js';
import { isA } from '../../operation/thrown.js';
import { reasonOf } from './connect.js';

/** What helps against a refusal from here. Services name their own methods and options. */
const HERE: Readonly<Record<string, string>> = {
  no_identity:
    'it has no tenant or operation key. Give it one by hand with redriveEdited() in the application, or discard it',
  conflict:
    'its key belongs to another request, which is untouched. Give it a key of its own with redriveEdited() in the application, or discard it',
  no_payload: 'its payload was not kept. Give one with redriveEdited() in the application, or discard it',
  deadline_passed: 'the deadline its producer gave has passed. Give another: --deadline <time>',
};

/** Why something failed, in words of the command line. */
export function inOurWords(error: unknown): string {
  if (!isA(error, DeadLetterRefusedError) || !Object.hasOwn(HERE, error.reason)) return reasonOf(error);
  return `${String(error.data['id'])}: ${HERE[error.reason]}. Nothing was changed.`;
}
