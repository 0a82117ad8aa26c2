// Operations and jobs that were given up, and what people can do about them.
export { DeadLetterService } from '../dead-letters/dead-letter.service.js';
export { OnDeadLetter } from '../dead-letters/on-dead-letter.decorator.js';
export { type DeadLetterMessage } from '../operation/dead-letter-message.js';
export {
  DEAD_LETTER_REASONS,
  type DeadLetterReason,
  type DeadLetterResolution,
} from '../operation/reasons.js';
export type {
  DeadLetterPage,
  LetterResult,
  RedriveManyOptions,
  RedriveOptions,
  RedrivePlan,
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRef,
  DeadLetterWithPayload,
} from '../dead-letters/dead-letter.js';
export type { OperationEdit } from '../dead-letters/edited-redrive.js';
export type { Redrive, RedrivePace, RedriveProgress } from '../dead-letters/bulk-redrive.js';
export type { ErrorEvidence } from '../operation/thrown.js';
