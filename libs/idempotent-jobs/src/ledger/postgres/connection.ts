/*
 * The parts of pg that the library needs. They are declared here because applications without `@types/pg` do not have pg's
 * types.
 */

/** A statement to be run. */
export interface Query {
  /** The name of a prepared statement. Undefined when it is not prepared. */
  readonly name?: string;
  readonly text: string;
  readonly values?: unknown[];
  /** How long to wait for the answer, in ms. Default 10,000. */
  readonly timeoutMs?: number;
}

/** What Postgres answers. */
export interface QueryResult {
  readonly rows: any[];
  readonly rowCount: number | null;
}

/** What can run statements: a transaction's connection, or a pool. */
export interface Queryable {
  query(query: Query): Promise<QueryResult>;
}

/** A connection of pg. */
export interface PgConnection {
  query(query: {
    name?: string;
    text: string;
    values?: unknown[];
    types?: TypeParsers;
  }): Promise<QueryResult>;
}

/** A pg Pool. */
export interface ConnectionPool {
  readonly options: { readonly max: number; readonly connectionString?: string };
  readonly Client: new (options: object) => any;
  connect(): Promise<PooledConnection>;
  end(): Promise<void>;
  on(event: 'connect' | 'acquire', listener: (connection: PooledConnection) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** A connection of a {@link ConnectionPool}. Released with an error, it is closed. */
export interface PooledConnection extends PgConnection {
  /** The server's process as reported when the connection was made. A pooler reports another number. */
  readonly processID?: number | null;
  release(error?: Error): void;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** How pg is told to read the values of a result. */
interface TypeParsers {
  getTypeParser(oid: number, format?: string): (text: any) => unknown;
}

const asNumber = (text: string): number => Number(text);
const asJson = (text: string): unknown => JSON.parse(text);
const asText = (text: string): string => text;

/** Parses a time as Postgres writes it with `DateStyle` ISO, e.g. `2026-01-31 06:00:00.123456+00`. */
function asDate(text: string): Date | number {
  if (text === 'infinity') return Infinity;
  if (text === '-infinity') return -Infinity;
  // The fast path for nearly all values: a year of four digits, in a session whose time zone is UTC.
  if (text[4] === '-' && text.endsWith('+00')) return new Date(`${text.slice(0, 10)}T${text.slice(11, -3)}Z`);
  const [, day = '', time = '', zone = ''] = /^(\S+) ([\d:.]+)([+-][\d:]+)$/.exec(text) ?? [];
  const year = /^\d{5,}/.test(day) ? `+${day.padStart(12, '0')}` : day;
  // JavaScript accepts only milliseconds, and zones of hours and minutes.
  return new Date(`${year}T${time.replace(/(\.\d{3})\d+$/, '$1')}${zone.length === 3 ? `${zone}:00` : zone}`);
}

/** By OID: bool, int8 stays text, int2, int4, json, float4, float8, timestamptz, jsonb. */
const PARSERS = new Map<number, (text: string) => unknown>([
  [16, (text) => text === 't'],
  [21, asNumber],
  [23, asNumber],
  [114, asJson],
  [700, asNumber],
  [701, asNumber],
  [1184, asDate],
  [3802, asJson],
]);

/**
 * The types of the ledger's own statements. The application may have told pg to read timestamps as Temporal or integers as
 * BigInt, for all of the process; that must not affect the library.
 */
export const LEDGER_TYPES: TypeParsers = {
  getTypeParser: (oid) => PARSERS.get(oid) ?? asText,
};

const listened = new WeakSet<object>();

/**
 * Gives every connection of a pool a permanent error listener. pg-pool removes its own before the caller that waits for
 * the connection can add one: a server that closes the connection at that moment (a planned restart) would end the process
 * with an unhandled 'error' event. The statement that fails on the connection reports the error.
 */
export function listenForErrors(pool: Pick<ConnectionPool, 'on'>): void {
  if (listened.has(pool)) return;
  listened.add(pool);
  const listen = (connection: PooledConnection): void => {
    if (listened.has(connection)) return;
    listened.add(connection);
    connection.on('error', () => undefined);
  };
  // Connections that were made before get their listener when they are next handed out.
  pool.on('connect', listen);
  pool.on('acquire', listen);
  pool.on('error', () => undefined);
}
