// Types that are part of others, for those who write them out.
export type { Effect } from '../operation/effect.js';
export type { Applied, NotApplied, Unknown, EffectVerdict } from '../reconcile/verdict.js';
export type { ProcessorClass, ProcessorOptionsFor } from '../intake/idempotent-processor.decorator.js';
export type { JobType } from '../operation/job-map.js';
export type { WriteOptions } from '../enqueue/enqueue.options.js';
export type { ResultOmitted } from '../record/kept-result.js';
