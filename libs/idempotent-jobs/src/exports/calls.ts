// Calls that are guarded like jobs, and writes that an outdated worker cannot make.
export { IdempotencyService } from '../calls/idempotency.service.js';
export { IdempotentEffect, type IdempotentEffectOptions } from '../calls/idempotent-effect.decorator.js';
export type { CallOptions } from '../calls/call.options.js';
export { fencedUpdate, type FencedUpdate, type FenceExecutor } from '../calls/fenced-update.js';
