import { hash } from 'node:crypto';
import { identityKeyOf, type OperationIdentity } from '../operation/identity.js';
import type { OperationStatus } from '../operation/status.js';
import type { Database, Queryable } from '../postgres/database.js';
import type { Statement } from '../postgres/statement.js';
import { ACCEPT, ANNOUNCE } from './accept.statement.js';

/** An operation that was asked for, checked and ready to be written. */
export interface AskedOperation extends OperationIdentity {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly fingerprint: string;
  /** JSON text. */
  readonly payload: string;
  readonly priority: number | undefined;
  readonly delayMs: number | undefined;
  readonly deadline: Date | undefined;
  /** JSON text. */
  readonly trace: string | undefined;
}

/** Where an operation stands after it was asked for. */
export type AcceptedOperation =
  | { readonly kind: 'new' }
  /** It existed before. `result` is set once it has completed. */
  | { readonly kind: 'duplicate'; readonly status: OperationStatus; readonly result: unknown }
  /** The key belongs to another request; nothing was written for this one. */
  | { readonly kind: 'conflict' };

/** Runs a statement in whatever transaction the caller has open. */
export type RunStatement = <Row>(statement: Statement, values: unknown[]) => Promise<Row[]>;

/** The dispatchers' NOTIFY channel. Each schema has its own. */
export function dispatchChannel(schema: string): string {
  // Postgres cuts names at 63 bytes, and a schema may have as many by itself.
  return `idempotent_jobs_${hash('sha256', schema, 'base64url').slice(0, 32)}`;
}

/** Writes the intent to run operations. */
export class OperationStore {
  constructor(private readonly database: Database) {}

  /** Runs statements on the pool, each a transaction of its own. */
  readonly onPool: RunStatement = (statement, values) => this.database.run(statement, values);

  /** Runs statements on a connection, in whatever transaction it has open. */
  on(connection: Queryable): RunStatement {
    return (statement, values) => this.database.run(statement, values, connection);
  }

  /** Writes operations of one queue, or finds them there. */
  async accept(run: RunStatement, asked: readonly AskedOperation[]): Promise<AcceptedOperation[]> {
    const accepted: AcceptedOperation[] = [];
    for (let start = 0; start < asked.length; start += CHUNK) {
      const chunk = asked.slice(start, start + CHUNK);
      let rows = await run<AcceptRow>(ACCEPT, acceptValues(chunk));
      // A rival's row was not in the snapshot yet; the next statement's snapshot has it.
      if (rows.some((row) => !row.is_new && row.status === null)) {
        const seen = await run<AcceptRow>(ACCEPT, acceptValues(chunk));
        rows = rows.map((row, index) => (row.is_new ? row : (seen[index] as AcceptRow)));
      }
      accepted.push(...chunk.map((operation, index) => read(operation, rows[index] as AcceptRow)));
    }
    return settleTwins(asked, accepted);
  }

  /** Wakes the dispatchers of all instances once the transaction commits. */
  async announce(run: RunStatement, queue: string): Promise<void> {
    await run(ANNOUNCE, [dispatchChannel(this.database.schema), queue]);
  }
}

/** Enough to make the round trip negligible, few enough to bound the memory of one statement. */
const CHUNK = 1000;

interface AcceptRow {
  readonly is_new: boolean;
  readonly fingerprint: string | null;
  readonly queue: string | null;
  readonly status: OperationStatus | null;
  readonly result: unknown;
}

function acceptValues(asked: readonly AskedOperation[]): unknown[] {
  return [
    asked[0]?.queue,
    asked.map((operation) => operation.tenantId),
    asked.map((operation) => operation.operationKey),
    asked.map((operation) => operation.jobName),
    asked.map((operation) => operation.jobId),
    asked.map((operation) => operation.fingerprint),
    asked.map((operation) => operation.payload),
    asked.map((operation) => operation.priority ?? null),
    asked.map((operation) => operation.delayMs ?? null),
    asked.map((operation) => operation.deadline ?? null),
    asked.map((operation) => operation.trace ?? null),
  ];
}

function read(operation: AskedOperation, row: AcceptRow): AcceptedOperation {
  if (row.is_new) return { kind: 'new' };
  // On another queue it would be run by another processor: that is another request, whatever its payload.
  if (row.fingerprint !== operation.fingerprint || row.queue !== operation.queue) return { kind: 'conflict' };
  return { kind: 'duplicate', status: row.status ?? 'pending', result: row.result ?? undefined };
}

/** Of several requests with one key in one call, the first is the operation; the statement calls all of them new. */
function settleTwins(
  asked: readonly AskedOperation[],
  accepted: readonly AcceptedOperation[],
): AcceptedOperation[] {
  const first = new Map<string, AskedOperation>();
  return asked.map((operation, index) => {
    const answer = accepted[index] as AcceptedOperation;
    const key = identityKeyOf(operation);
    const twin = first.get(key);
    if (twin === undefined) {
      first.set(key, operation);
      return answer;
    }
    if (twin.fingerprint !== operation.fingerprint) return { kind: 'conflict' };
    return answer.kind === 'new' ? { kind: 'duplicate', status: 'pending', result: undefined } : answer;
  });
}
