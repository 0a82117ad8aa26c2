/**
 * What can be taken out of the library, and which tests are there to notice. Each `find` stands in `file` exactly once: a
 * promise that is kept twice is taken out in both places. `cases` name tests by their file and a pattern of their full
 * names.
 */
const RECORDS = 'ledger/record/record.statements.ts';
const COMPLETIONS = 'ledger/claim/complete.statement.ts';
const CLAIMS = 'ledger/claim/claim.statement.ts';

const IN_TENANTS = (title) => [{ spec: 'test/e2e/tenants.spec.ts', title }];
const IN_FENCING = (title) => [{ spec: 'test/e2e/fencing.spec.ts', title }];

export const MUTATIONS = [
  {
    name: 'the fencing token of a success',
    file: COMPLETIONS,
    edits: [
      {
        find: "locked('ended a', `o.fencing_token = a.token AND ",
        replace: "locked('ended a', `",
      },
      {
        find: "    AND o.fencing_token = a.token AND o.status = 'running'\n  RETURNING a.n",
        replace: "    AND o.status = 'running'\n  RETURNING a.n",
      },
    ],
    cases: IN_FENCING('an attempt that succeeds after'),
  },
  {
    name: 'the transaction of a success',
    file: COMPLETIONS,
    edits: [
      {
        find: '\n  AND o.xmin = pg_current_xact_id_if_assigned()::xid\nRETURNING',
        replace: '\nRETURNING',
      },
    ],
    cases: [{ spec: 'test/e2e/transactional.spec.ts', title: 'commits the transaction itself and then' }],
  },
  {
    name: 'the fencing token of a failure',
    file: RECORDS,
    edits: [
      {
        find: 'WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token = :token AND o.lease_expires_at IS NOT NULL',
        replace:
          'WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND :token::bigint IS NOT NULL AND o.lease_expires_at IS NOT NULL',
      },
    ],
    cases: IN_FENCING('an attempt that fails after'),
  },
  {
    name: 'the fencing token of an attempt that is given back',
    file: RECORDS,
    edits: [
      {
        find: "WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token = :token AND o.status = 'running'\nRETURNING true",
        replace:
          "WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND :token::bigint IS NOT NULL AND o.status = 'running'\nRETURNING true",
      },
    ],
    cases: IN_FENCING('an attempt that hands its job back after'),
  },
  {
    name: 'the fencing token of a renewal',
    file: 'ledger/claim/lease-keeper.ts',
    edits: [
      {
        find: "locked('input a', 'o.fencing_token = a.token AND ",
        replace: "locked('input a', '",
      },
    ],
    cases: IN_FENCING('is told so by its signal'),
  },
  {
    name: 'the tenant of a success',
    file: COMPLETIONS,
    edits: [
      {
        find: "locked('ended a', `o.fencing_token = a.token AND o.status = 'running'`)",
        replace:
          "locked('ended a', `o.fencing_token = a.token AND o.status = 'running'`).replace('o.tenant_id = a.tenant_id AND ', '')",
      },
      {
        find: "  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${lookedUpByKey('a.operation_key')}\n    AND o.fencing_token = a.token",
        replace: '  WHERE o.operation_key = a.operation_key\n    AND o.fencing_token = a.token',
      },
    ],
    cases: IN_TENANTS('many tenants with one key'),
  },
  {
    name: 'the tenant of a failure',
    file: RECORDS,
    edits: [
      {
        find: 'WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token = :token AND o.lease_expires_at IS NOT NULL',
        replace:
          'WHERE :tenantId::text IS NOT NULL AND o.operation_key = :operationKey AND o.fencing_token = :token AND o.lease_expires_at IS NOT NULL',
      },
    ],
    cases: IN_TENANTS('many tenants with one key'),
  },
  {
    name: 'the tenant of what is claimed',
    file: CLAIMS,
    edits: [
      {
        find: "  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${lookedUpByKey('a.operation_key')}\n    AND o.fingerprint = a.fingerprint AND o.queue = :queue",
        replace: '  WHERE o.operation_key = a.operation_key\n    AND o.queue = :queue',
      },
    ],
    cases: IN_TENANTS('leaves the operations of other tenants'),
  },
  {
    name: 'the tenant of a claim that is won',
    file: CLAIMS,
    edits: [
      {
        find: 'LEFT JOIN claimed c ON c.operation_key = a.operation_key AND c.tenant_id = a.tenant_id',
        replace: 'LEFT JOIN claimed c ON c.operation_key = a.operation_key',
      },
    ],
    cases: IN_TENANTS('under a token of their own'),
  },
  {
    name: 'the tenant of what a claim has seen',
    file: CLAIMS,
    edits: [
      {
        find: 'WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key\n    LIMIT 1',
        replace: 'WHERE o.operation_key = a.operation_key\n    OFFSET 0',
      },
    ],
    cases: IN_TENANTS('replay the result of their own tenant'),
  },
  {
    name: 'the tenant of an operation that is asked for again',
    file: 'producer/operation.store.ts',
    edits: [
      {
        find: 'WHERE acc.tenant_id IS NULL AND o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key',
        replace: 'WHERE acc.tenant_id IS NULL AND o.operation_key = a.operation_key',
      },
    ],
    cases: IN_TENANTS('many tenants with one key'),
  },
  {
    name: 'the tenant that row-level security sees',
    file: 'ledger/postgres/handler-transaction.ts',
    edits: [
      {
        find: "set_config('app.tenant_id', $1, true),\n",
        replace: "set_config('app.tenant_id', '', $1::text <> ''),\n",
      },
    ],
    cases: [
      { spec: 'test/e2e/transactional.spec.ts', title: 'under the tenant that row-level security sees' },
    ],
  },
  {
    name: 'the record before the acknowledgement',
    file: 'worker/attempt/lease.ground.ts',
    edits: [
      {
        find: 'return this.#record(() => (followUps.length === 0 ? write() : this.#writeWith(followUps, write)));',
        replace:
          "void this.#record(() => (followUps.length === 0 ? write() : this.#writeWith(followUps, write)));\n    return Promise.resolve('recorded');",
      },
    ],
    cases: [{ spec: 'test/e2e/record-first.spec.ts', title: 'a job is not completed while' }],
  },
  {
    name: 'putting operations on their queue again',
    file: 'dispatch/operation.source.ts',
    edits: [
      {
        find: 'SET dispatch_due_at = GREATEST(clock_timestamp(), COALESCE(o.reconcile_due_at, o.available_at))\n      + LEAST(',
        replace:
          'SET dispatch_due_at = GREATEST(clock_timestamp(), COALESCE(o.reconcile_due_at, o.available_at))\n      + 1000 * LEAST(',
      },
    ],
    cases: [{ spec: 'test/e2e/lost-queue.spec.ts', title: 'obliterated by force' }],
  },
  {
    name: 'the attempt that a deferral gives back',
    file: RECORDS,
    edits: [{ find: 'attempts         = o.attempts - 1,', replace: 'attempts         = o.attempts,' }],
    cases: [{ spec: 'test/e2e/shutdown.spec.ts', title: 'keyed' }],
  },
  {
    name: 'the end of a lease that is to be waited for',
    file: CLAIMS,
    edits: [
      {
        find: 'const IS_FREE = `COALESCE(o.lease_expires_at <= clock_timestamp(), true)`;',
        replace: 'const IS_FREE = `true`;',
      },
    ],
    cases: [{ spec: 'test/e2e/claim-answers.spec.ts', title: 'busy: a delivery that meets' }],
  },
  {
    name: 'the end of a lease that lets others in',
    file: CLAIMS,
    edits: [
      {
        find: 'const IS_FREE = `COALESCE(o.lease_expires_at <= clock_timestamp(), true)`;',
        replace: 'const IS_FREE = `o.lease_expires_at IS NULL`;',
      },
    ],
    cases: [{ spec: 'test/e2e/crash.spec.ts', title: 'keyed: killed between effect and record' }],
  },
  {
    name: 'the doubt that a crash leaves',
    file: CLAIMS,
    edits: [
      {
        find: 'const IS_REPEATABLE = `clock_timestamp() < o.repeatable_until` as const;',
        replace: 'const IS_REPEATABLE = `true` as const;',
      },
    ],
    cases: [{ spec: 'test/e2e/crash.spec.ts', title: 'unrepeatable: killed between effect and record' }],
  },
  {
    name: 'the doubt that a failure leaves',
    file: 'worker/rules/decide.ts',
    edits: [
      {
        find: "const mayHaveHappened = !isRevertible && (failure.kind === 'in_doubt' || saysNothing);",
        replace: 'const mayHaveHappened = !isRevertible && saysNothing;',
      },
    ],
    cases: [{ spec: 'test/e2e/retries.spec.ts', title: 'an unrepeatable attempt that times out' }],
  },
];
