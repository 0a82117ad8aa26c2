// Calls that are guarded like jobs, and writes that an outdated worker cannot win.
export { IdempotencyService } from '../call/idempotency.service.js';
export { IdempotentEffect, type IdempotentEffectOptions } from '../call/idempotent-effect.decorator.js';
export type { CallOptions } from '../call/call.options.js';
export { fencedUpdate, type FencedUpdate, type FenceExecutor } from '../fencing/fenced-update.js';
