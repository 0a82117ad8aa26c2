import { assertName, type OperationIdentity } from '../../operation/identity.js';
import { storableJobId } from '../../operation/job.js';

/** Where an encrypted value belongs. It opens nowhere else: not for another tenant, operation or column. */
export interface Binding {
  /** Null for the payload of a job without a valid identity. */
  readonly tenantId: string | null;
  readonly operationKey: string;
  readonly kind: 'payload' | 'result';
}

export function payloadBinding({ tenantId, operationKey }: OperationIdentity): Binding {
  return { tenantId, operationKey, kind: 'payload' };
}

export function resultBinding({ tenantId, operationKey }: OperationIdentity): Binding {
  return { tenantId, operationKey, kind: 'result' };
}

/**
 * Where a letter's payload belongs: to its operation, whose own payload it becomes when the letter is redriven. Without an
 * operation it belongs to the job, by the id under which Postgres stores it, which may differ from the one in Redis.
 */
export function letterBinding(letter: {
  readonly tenantId?: string | null | undefined;
  readonly operationKey?: string | null | undefined;
  readonly stepOf?: string | undefined;
  readonly step?: string | undefined;
  readonly queue: string;
  readonly jobId: string;
}): Binding {
  const { tenantId, operationKey, stepOf, step, queue, jobId } = letter;
  return tenantId && operationKey
    ? payloadBinding(assertName({ tenantId, operationKey: stepOf ?? operationKey, step }))
    : {
        tenantId: null,
        operationKey: `${queue}:${storableJobId(jobId)}`,
        kind: 'payload',
      };
}
