// Services that handlers call and that may fail.
export {
  DependencyGuard,
  DependencyTimeoutError,
  type GuardedCallOptions,
} from '../calls/dependency-guard.js';
export { DependencyRejectedError, type Rejection } from '../resilience/dependency/rejection.js';
export type { FallbackReason, RejectionCause } from '../operation/reasons.js';
export type {
  DependencyBreakerOptions,
  DependencyBudgetOptions,
  DependencyOptions,
} from '../resilience/dependency/dependency.options.js';
export type { KeyedDependency, KeyedOperation } from '../resilience/dependency/dependency-key.js';
export type { DependencyState } from '../resilience/dependency/dependency.js';
export type { CircuitState } from '../resilience/circuit-breaker.js';
