/**
 * What can be taken out of the library, and which tests are there to notice. `find` stands in `file` exactly once;
 * `cases` name tests by their file and a pattern of their full names.
 */
export const MUTATIONS = [
  {
    name: 'the fencing token of a success',
    file: 'record/record.statements.ts',
    find: `    AND o.fencing_token = a.token AND o.status = 'running'
  RETURNING a.n`,
    replace: `    AND o.status = 'running'
  RETURNING a.n`,
    cases: [{ spec: 'test/e2e/fencing.spec.ts', title: 'a zombie that comes back to succeed' }],
  },
  {
    name: 'the fencing token of a failure',
    file: 'record/record.statements.ts',
    find: 'WHERE o.tenant_id = $1 AND o.operation_key = $2 AND o.fencing_token = $3 AND o.lease_expires_at IS NOT NULL',
    replace:
      'WHERE o.tenant_id = $1 AND o.operation_key = $2 AND $3::bigint IS NOT NULL AND o.lease_expires_at IS NOT NULL',
    cases: [{ spec: 'test/e2e/fencing.spec.ts', title: 'a zombie that comes back to fail' }],
  },
  {
    name: 'the fencing token of an attempt that is given back',
    file: 'record/record.statements.ts',
    find: `WHERE o.tenant_id = $1 AND o.operation_key = $2 AND o.fencing_token = $3 AND o.status = 'running'
RETURNING true`,
    replace: `WHERE o.tenant_id = $1 AND o.operation_key = $2 AND $3::bigint IS NOT NULL AND o.status = 'running'
RETURNING true`,
    cases: [{ spec: 'test/e2e/fencing.spec.ts', title: 'a zombie that comes back to hand back' }],
  },
  {
    name: 'the fencing token of a renewal',
    file: 'claim/lease-keeper.ts',
    find: 'ON o.tenant_id = h.tenant_id AND o.operation_key = h.operation_key AND o.fencing_token = h.token',
    replace: 'ON o.tenant_id = h.tenant_id AND o.operation_key = h.operation_key',
    cases: [{ spec: 'test/e2e/fencing.spec.ts', title: 'is told so by its signal' }],
  },
  {
    name: 'the tenant of a success',
    file: 'record/record.statements.ts',
    find: `  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    AND o.fencing_token = a.token AND o.status = 'running'`,
    replace: `  WHERE o.operation_key = a.operation_key
    AND o.fencing_token = a.token AND o.status = 'running'`,
    cases: [{ spec: 'test/e2e/tenants.spec.ts', title: 'many tenants with one key' }],
  },
  {
    name: 'the tenant of a failure',
    file: 'record/record.statements.ts',
    find: 'WHERE o.tenant_id = $1 AND o.operation_key = $2 AND o.fencing_token = $3 AND o.lease_expires_at IS NOT NULL',
    replace:
      'WHERE $1::text IS NOT NULL AND o.operation_key = $2 AND o.fencing_token = $3 AND o.lease_expires_at IS NOT NULL',
    cases: [{ spec: 'test/e2e/tenants.spec.ts', title: 'many tenants with one key' }],
  },
  {
    name: 'the tenant of a claim',
    file: 'claim/claim.statement.ts',
    find: 'LEFT JOIN claimed c ON c.tenant_id = a.tenant_id AND c.operation_key = a.operation_key',
    replace: 'LEFT JOIN claimed c ON c.operation_key = a.operation_key',
    cases: [{ spec: 'test/e2e/tenants.spec.ts', title: 'replay the result of their own tenant' }],
  },
  {
    name: 'the tenant of what is claimed',
    file: 'claim/claim.statement.ts',
    find: `  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    AND o.fingerprint = a.fingerprint AND o.queue = $1
    AND (`,
    replace: `  WHERE o.operation_key = a.operation_key
    AND o.queue = $1
    AND (`,
    cases: [{ spec: 'test/e2e/tenants.spec.ts', title: 'many tenants with one key' }],
  },
  {
    name: 'the tenant of what a claim has seen',
    file: 'claim/claim.statement.ts',
    find: `LEFT JOIN {schema}.job_outcomes o ON o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
LEFT JOIN free f`,
    replace: `LEFT JOIN {schema}.job_outcomes o ON o.operation_key = a.operation_key
LEFT JOIN free f`,
    cases: [{ spec: 'test/e2e/tenants.spec.ts', title: 'replay the result of their own tenant' }],
  },
  {
    name: 'the tenant of an operation that is asked for again',
    file: 'enqueue/accept.statement.ts',
    find: 'LEFT JOIN {schema}.job_outcomes o ON o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key',
    replace: 'LEFT JOIN {schema}.job_outcomes o ON o.operation_key = a.operation_key',
    cases: [{ spec: 'test/e2e/tenants.spec.ts', title: 'many tenants with one key' }],
  },
  {
    name: 'the tenant that row-level security sees',
    file: 'postgres/handler-transaction.ts',
    find: `set_config('app.tenant_id', $1, true)`,
    replace: `set_config('app.tenant_id', '', $1 <> '')`,
    cases: [
      { spec: 'test/e2e/transactional.spec.ts', title: 'under the tenant that row-level security sees' },
    ],
  },
  {
    name: 'the record before the acknowledgement',
    file: 'attempt/leased.attempt.ts',
    find: 'const recorded = await persistently(recordPatienceMs(context.delivery.processor.leaseMs), () =>',
    replace: `const recorded = 'recorded' as Recorded; void persistently(recordPatienceMs(context.delivery.processor.leaseMs), () =>`,
    cases: [{ spec: 'test/e2e/record-first.spec.ts', title: 'a job is not completed while' }],
  },
  {
    name: 'putting operations on their queue again',
    file: 'dispatch/operation.source.ts',
    find: 'SET dispatch_due_at = GREATEST(clock_timestamp(), COALESCE(o.reconcile_due_at, o.available_at))\n      + LEAST(',
    replace:
      'SET dispatch_due_at = GREATEST(clock_timestamp(), COALESCE(o.reconcile_due_at, o.available_at))\n      + 1000 * LEAST(',
    cases: [{ spec: 'test/e2e/lost-queue.spec.ts', title: 'obliterated by force' }],
  },
  {
    name: 'the attempt that a deferral gives back',
    file: 'record/record.statements.ts',
    find: 'attempts         = o.attempts - 1,',
    replace: 'attempts         = o.attempts,',
    cases: [{ spec: 'test/e2e/shutdown.spec.ts', title: 'keyed' }],
  },
  {
    name: 'the end of a lease that is to be waited for',
    file: 'claim/claim.statement.ts',
    find: 'const IS_FREE = `COALESCE(o.lease_expires_at <= clock_timestamp(), true)`;',
    replace: 'const IS_FREE = `true`;',
    cases: [{ spec: 'test/e2e/claim-answers.spec.ts', title: 'busy: a delivery that meets' }],
  },
  {
    name: 'the end of a lease that lets others in',
    file: 'claim/claim.statement.ts',
    find: 'const IS_FREE = `COALESCE(o.lease_expires_at <= clock_timestamp(), true)`;',
    replace: 'const IS_FREE = `o.lease_expires_at IS NULL`;',
    cases: [{ spec: 'test/e2e/crash.spec.ts', title: 'keyed: killed between effect and record' }],
  },
  {
    name: 'the doubt that a crash leaves',
    file: 'claim/claim.statement.ts',
    find: 'const IS_REPEATABLE = `clock_timestamp() < o.repeatable_until`;',
    replace: 'const IS_REPEATABLE = `true`;',
    cases: [{ spec: 'test/e2e/crash.spec.ts', title: 'unrepeatable: killed between effect and record' }],
  },
  {
    name: 'the doubt that a failure leaves',
    file: 'settle/decide.ts',
    find: `const mayHaveHappened = !isRevertible && (failure.kind === 'in_doubt' || saysNothing);`,
    replace: `const mayHaveHappened = !isRevertible && saysNothing;`,
    cases: [{ spec: 'test/e2e/retries.spec.ts', title: 'an unrepeatable attempt that times out' }],
  },
];
