// Types that other types consist of, for code that names them.
export type { Effect } from '../operation/effect.js';
export type { Applied, NotApplied, Unknown, EffectVerdict } from '../operation/effect.js';
export type { ProcessorClass, ProcessorOptionsFor } from '../worker/host/idempotent-processor.decorator.js';
export type { JobType } from '../operation/job.js';
export type { WriteOptions } from '../producer/enqueue.options.js';
export type { ResultOmitted } from '../ledger/record/recorded-result.js';
