import type { INestApplicationContext } from '@nestjs/common';
import { getQueueToken } from '@nestjs/bullmq';
import { getDataSourceToken } from '@nestjs/typeorm';
import type { Job, Queue } from 'bullmq';
import {
  getIdempotentQueueToken,
  type IdempotentQueue,
  type Outcome,
  OutcomeService,
  TenantContext,
} from 'nestjs-idempotent-jobs';
import type { DataSource } from 'typeorm';

export function dataSourceOf(app: INestApplicationContext): DataSource {
  return app.get<DataSource>(getDataSourceToken());
}

/** A row of `dead_letters`, as far as tests look. */
export interface LetterRow {
  readonly id: string;
  readonly tenant_id: string | null;
  readonly operation_key: string | null;
  readonly reason: string;
  readonly queue: string;
  readonly job_name: string;
  readonly attempts: number;
  readonly payload: unknown;
  readonly error: { name: string; message: string; stack?: string } | null;
  readonly dispatch_due_at: Date | null;
  readonly resolution: string | null;
  readonly notified_at: Date | null;
  readonly step_of: string | null;
  readonly step: string | null;
}

/** The letters of everybody, or of one tenant. */
export function lettersOf(app: INestApplicationContext, tenantId?: string): Promise<LetterRow[]> {
  return dataSourceOf(app).query<LetterRow[]>(
    'SELECT * FROM dead_letters WHERE $1::text IS NULL OR tenant_id = $1 ORDER BY created_at',
    [tenantId],
  );
}

export async function attemptKindsOf(
  app: INestApplicationContext,
  operationKey: string,
  tenantId = 'acme',
): Promise<string[]> {
  const rows = await dataSourceOf(app).query<{ kind: string }[]>(
    'SELECT kind FROM job_attempts WHERE tenant_id = $1 AND operation_key = $2 ORDER BY fencing_token',
    [tenantId, operationKey],
  );
  return rows.map((row) => row.kind);
}

export function outcomeOf(
  app: INestApplicationContext,
  operationKey: string,
  tenantId = 'acme',
): Promise<Outcome | undefined> {
  return app.get(OutcomeService).get({ tenantId, operationKey });
}

export function stepOf(
  app: INestApplicationContext,
  operationKey: string,
  step: string,
  tenantId = 'acme',
): Promise<Outcome | undefined> {
  return app.get(OutcomeService).get({ tenantId, operationKey, step });
}

/**
 * Lets the leases of processes that have died run out soon. A process that is slow needs a long one while it lives, which
 * nobody wants to wait for afterwards.
 */
export async function shortenLeases(app: INestApplicationContext): Promise<void> {
  await dataSourceOf(app).query(
    `UPDATE job_outcomes SET lease_expires_at = clock_timestamp() + interval '300 milliseconds'
     WHERE lease_expires_at > clock_timestamp()`,
  );
}

/** Waits until nothing more happens to the operation by itself. */
export function settled(
  app: INestApplicationContext,
  operationKey: string,
  tenantId = 'acme',
  timeoutMs = 100_000,
): Promise<Outcome> {
  return app.get(OutcomeService).wait({ tenantId, operationKey }, { timeoutMs });
}

export function idempotentQueue(app: INestApplicationContext, name: string): IdempotentQueue {
  return app.get<IdempotentQueue>(getIdempotentQueueToken(name));
}

export function bullQueue(app: INestApplicationContext, name: string): Queue {
  return app.get<Queue>(getQueueToken(name));
}

/**
 * Changes a whole queue while workers are at it. They lock its rows in an order of their own, so on Postgres the change
 * may be the victim of a deadlock; it is then made again, as one does from a dashboard.
 */
export async function againIfDeadlocked<T>(change: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await change();
    } catch (error) {
      if (!String(error).includes('deadlock detected')) throw error;
    }
  }
}

export function asTenant<T>(app: INestApplicationContext, tenantId: string, fn: () => T): T {
  return app.get(TenantContext).run(tenantId, fn);
}

export function enqueue(
  app: INestApplicationContext,
  queue: string,
  name: string,
  payload: object,
  operationKey: string,
  tenantId = 'acme',
): Promise<unknown> {
  return idempotentQueue(app, queue).enqueue(name, payload, { operationKey, tenantId });
}

/** Delivers an operation by a plain job, as many times as it is called. */
export function deliver(
  app: INestApplicationContext,
  queue: string,
  key: string,
  rest: object = {},
  tenant = 'acme',
): Promise<Job> {
  return bullQueue(app, queue).add('charge', { tenant, key, ...rest });
}

/** The state of a job, freshly asked. */
export async function stateOf(app: INestApplicationContext, queue: string, job: Job): Promise<string> {
  return bullQueue(app, queue).getJobState(job.id as string);
}

/** The keys of that many charges. */
export const numbered = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `charge:${index}`);
