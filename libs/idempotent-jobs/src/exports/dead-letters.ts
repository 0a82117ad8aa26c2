// Operations and jobs that were given up, and what people do about them.
export { DeadLetterService } from '../dead-letter/dead-letter.service.js';
export { OnDeadLetter } from '../dead-letter/on-dead-letter.decorator.js';
export { type DeadLetterMessage } from '../dead-letter/letter.js';
export { DEAD_LETTER_REASONS, type DeadLetterReason } from '../operation/reasons.js';
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
  DeadLetterWithPayload,
} from '../dead-letter/dead-letter.js';
export type { DeadLetterResolution } from '../operation/reasons.js';
export type { OperationEdit } from '../dead-letter/edited-redrive.js';
export type { Redrive, RedrivePace, RedriveProgress } from '../dead-letter/redrive.js';
export type { ErrorEvidence } from '../record/error-evidence.js';
