import { orUndefined, read } from '../../operation/thrown.js';
import { waitOf } from './wait.js';

/**
 * Headers that name a wait in milliseconds: Azure and OpenAI answer with `retry-after-ms`, Azure Cosmos DB with
 * `x-ms-retry-after-ms`, AWS with `x-amz-retry-after`. More exact than Retry-After, so asked first.
 */
const IN_MILLISECONDS = ['retry-after-ms', 'x-ms-retry-after-ms', 'x-amz-retry-after'];

/** The wait that an answer asks for, in milliseconds from now. Undefined if it names none. @internal */
export function retryAfterOf(headers: unknown): number | undefined {
  for (const name of IN_MILLISECONDS) {
    const ms = numberOf(header(headers, name));
    if (ms !== undefined) return waitOf(ms);
  }
  const raw = header(headers, 'retry-after') ?? read(headers, 'Retry-After');
  const seconds = numberOf(raw);
  if (seconds !== undefined) return waitOf(seconds * 1000);
  // Seconds or a date (RFC 9110, section 10.2.3).
  return typeof raw === 'string' ? waitOf(Date.parse(raw) - Date.now()) : undefined;
}

function header(headers: unknown, name: string): unknown {
  const get = read(headers, 'get');
  return typeof get === 'function'
    ? orUndefined(() => (get as (name: string) => unknown).call(headers, name))
    : read(headers, name);
}

function numberOf(raw: unknown): number | undefined {
  if ((typeof raw !== 'string' && typeof raw !== 'number') || String(raw).trim() === '') return undefined;
  const value = Number(raw);
  return Number.isFinite(value) ? value : undefined;
}
