import { toJsonText } from '../../operation/json.js';
import { messageOf } from '../../operation/thrown.js';
import { errorTypeOf } from '../../tracing/attributes.js';
import type { RecordedResult, ResultOmitted, ResultRules } from '../../ledger/record/recorded-result.js';
import { isEncrypted, looksEncrypted } from '../../ledger/encryption/encryption.js';

/** A handler's result as the ledger keeps it. */
export interface KeptResult extends RecordedResult {
  /** What interceptors and BullMQ get: the same value that a replay will read. */
  readonly value: unknown;
  /** Why a result could not be kept, for people. Never quotes what the handler returned. */
  readonly problem: string | undefined;
}

/**
 * Makes the text that the ledger keeps of a result. The effect has happened by now, so a result that cannot be kept
 * must not fail the operation: it completes without one, and says so.
 *
 * The first run's value is read back from the kept text, so that no replay can differ from it.
 */
export function keepResult(value: unknown, rules: ResultRules): KeptResult {
  if (value === undefined) return NOTHING;
  if (!rules.isStored) return without('not_stored', undefined);
  const redacted = rules.redact === undefined ? { value } : redact(value, rules.redact);
  if ('problem' in redacted) return without('redact_failed', redacted.problem);
  return redacted.value === undefined ? NOTHING : keep(redacted.value, rules.maxBytes);
}

const NOTHING: KeptResult = { text: undefined, value: undefined, omitted: undefined, problem: undefined };

function keep(value: unknown, maxBytes: number): KeptResult {
  let text: string;
  try {
    text = toJsonText('result', value);
  } catch (error) {
    return without('not_json', messageOf(error));
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes)
    return without(
      'too_large',
      `The result has ${bytes} bytes as JSON; at most ${maxBytes} are kept. Return a reference to it, or raise forRoot({ results: { maxBytes } }).`,
    );
  const read = readBack(value, text);
  if (isEncrypted(read)) return without('not_json', looksEncrypted('The result'));
  return { text, value: read, omitted: undefined, problem: undefined };
}

function without(omitted: ResultOmitted, problem: string | undefined): KeptResult {
  return { text: undefined, value: undefined, omitted, problem };
}

/** Parses the text, except for values that JSON gives back as they are. */
function readBack(value: unknown, text: string): unknown {
  return value === null || typeof value === 'string' || typeof value === 'boolean' ? value : JSON.parse(text);
}

/** The function's error may quote the result, so only its type is told. */
function redact(
  value: unknown,
  rule: (result: unknown) => unknown,
): { readonly value: unknown } | { readonly problem: string } {
  try {
    const redacted = rule(value);
    if (!(redacted instanceof Promise)) return { value: redacted };
    redacted.catch(() => undefined);
    return { problem: 'redact() returned a promise, but must be synchronous; the result was not kept.' };
  } catch (error) {
    const kind = errorTypeOf(error);
    return { problem: `redact() threw ${kind}; the result was not kept.` };
  }
}
