// Operations and jobs that were given up, and what people do about them.
export { DeadLetterService } from '../dead-letter/dead-letter.service.js';
export { OnDeadLetter } from '../dead-letter/on-dead-letter.decorator.js';
export { DEAD_LETTER_REASONS, type DeadLetterMessage, type DeadLetterReason } from '../dead-letter/letter.js';
export type {
  DeadLetterPage,
  LetterResult,
  RedriveManyOptions,
  RedriveOptions,
  RedrivePlan,
} from '../dead-letter/dead-letter.options.js';
export type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRef,
  DeadLetterResolution,
  DeadLetterWithPayload,
} from '../dead-letter/dead-letter.js';
export type { OperationEdit } from '../dead-letter/edited-redrive.js';
export type { Redrive, RedrivePace, RedriveProgress } from '../dead-letter/redrive.js';
export type { ErrorEvidence } from '../record/error-evidence.js';
