// What handlers call and cannot rely on.
export {
  DependencyGuard,
  DependencyTimeoutError,
  type GuardedCallOptions,
} from '../dependency/dependency-guard.js';
export { DependencyHeldError, type Hold } from '../dependency/hold.js';
export type { FallbackReason, HoldCause } from '../operation/reasons.js';
export type {
  DependencyBreakerOptions,
  DependencyBudgetOptions,
  DependencyOptions,
} from '../dependency/dependency.options.js';
export type { KeyedDependency, KeyedOperation } from '../dependency/dependency-key.js';
export type { DependencyState } from '../dependency/dependency.js';
export type { CircuitState } from '../resilience/circuit-state.js';
