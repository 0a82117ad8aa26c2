const ANY = undefined;
const KINDS_OF_REUSE = ['replayed', 'duplicate', 'conflict', 'busy'];
const LETTER_REASONS = [
  'permanent_error',
  'retries_exhausted',
  'time_budget_exceeded',
  'deferred_too_long',
  'crash_loop',
  'payload_invalid',
  'identity_missing',
  'tenant_mismatch',
  'idempotency_conflict',
  'in_doubt',
  'expired',
  'manual',
];
const RESULTS = ['completed', 'degraded', 'replayed', 'retrying', 'in_doubt', 'dead', 'deferred'];

/**
 * What the application exports: each metric with its labels, and their values where these are a closed list. Written by
 * hand, as rules and dashboards are: whoever changes a name sees here whom it breaks.
 */
export const EXPORTED: Readonly<Record<string, Readonly<Record<string, readonly string[] | undefined>>>> = {
  job_attempts_started_total: { queue: ANY, job: ANY, kind: ['first', 'retry'] },
  retry_attempts_total: { queue: ANY, job: ANY, dependency: ANY, reason: ANY },
  retry_exhausted_total: { queue: ANY, job: ANY, reason: LETTER_REASONS },
  dependency_timeout_total: { dependency: ANY, queue: ANY },
  circuit_breaker_open_total: { dependency: ANY },
  fallback_used_total: { dependency: ANY, reason: ANY },
  idempotency_key_reused_total: { queue: ANY, job: ANY, kind: KINDS_OF_REUSE },
  dead_letter_messages_total: { queue: ANY, reason: LETTER_REASONS },
  dead_letter_messages_dropped_total: { queue: ANY, reason: ['malformed', 'unknown', 'elsewhere'] },
  dead_letter_redriven_total: { queue: ANY, result: ['redriven', 'completed'] },
  jobs_processed_total: { queue: ANY, job: ANY, result: RESULTS },
  job_failures_total: { queue: ANY, job: ANY, kind: ANY, reason: ANY },
  jobs_deferred_total: { queue: ANY, dependency: ANY, reason: ANY },
  jobs_handed_back_total: { queue: ANY, job: ANY, kind: ['first', 'again'] },
  retry_budget_denied_total: { dependency: ANY },
  fence_rejected_total: { queue: ANY },
  job_retry_count: { queue: ANY, job: ANY, le: ANY },
  job_duration_seconds: { queue: ANY, job: ANY, le: ANY },
  job_wait_seconds: { queue: ANY, job: ANY, le: ANY },
  job_end_to_end_seconds: { queue: ANY, job: ANY, le: ANY },
  queue_depth: { queue: ANY, state: ['waiting', 'active', 'delayed', 'failed'] },
  queue_oldest_message_age_seconds: { queue: ANY },
  dead_letter_open: { queue: ANY, reason: LETTER_REASONS },
  dead_letter_oldest_age_seconds: { queue: ANY },
  dispatch_pending: {},
  dispatch_oldest_age_seconds: {},
  jobs_in_doubt: { queue: ANY },
  jobs_in_doubt_oldest_age_seconds: { queue: ANY },
  circuit_breaker_state: { dependency: ANY },
};

/** Those whose series have three endings. */
export const HISTOGRAMS = Object.keys(EXPORTED).filter((name) => 'le' in EXPORTED[name]!);
