/** Why a dependency lets nothing through for now. */
export const HOLD_CAUSES = ['circuit_open', 'bulkhead_full', 'retry_budget_spent'] as const;

/** One of {@link HOLD_CAUSES}. */
export type HoldCause = (typeof HOLD_CAUSES)[number];

/** What a fallback stands in for: a call that was not let through, or one that failed. */
export const FALLBACK_REASONS = [...HOLD_CAUSES, 'timeout', 'failed'] as const;

/** One of {@link FALLBACK_REASONS}. */
export type FallbackReason = (typeof FALLBACK_REASONS)[number];

/** Whether a dependency's circuit lets calls through; `forced_…`: a person said so. */
export type CircuitState = 'closed' | 'open' | 'half_open' | 'forced_open' | 'forced_closed';
