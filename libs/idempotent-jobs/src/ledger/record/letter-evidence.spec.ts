import { describe, expect, it } from 'vitest';
import { describeError } from '../../operation/thrown.js';
import { assertIdentity } from '../../operation/identity.js';
import { toJsonText } from '../../operation/json.js';
import { errorFingerprint } from './letter-evidence.js';

/** An error as thrown at a place. */
function thrownAt(place: string, message = 'no', name = 'Error', extra: object = {}): Error {
  const error = Object.assign(new Error(message), { name, ...extra });
  error.stack = `${name}: ${message}\n    at node:internal/process:1:1\n    at fetch (/app/node_modules/undici/index.js:4:2)\n    at ${place}\n    at main (/app/dist/main.js:1:1)`;
  return error;
}

function fingerprint(error: unknown, reason = 'permanent_error'): string {
  return errorFingerprint(reason, describeError(error));
}

describe('errorFingerprint', () => {
  const here = 'async ChargeProcessor.process (file:///app/dist/charges/charge.processor.js:17:5)';

  it.each([
    ['another message', thrownAt(here, 'order 18 has no card')],
    ['another line', thrownAt(here.replace(':17:5', ':99:1'))],
    ['another directory of the deployment', thrownAt(here.replace('/app/', '/srv/release-7/'))],
  ])('is the same for one cause: %s', (_title, error) => {
    expect(fingerprint(error)).toBe(fingerprint(thrownAt(here)));
  });

  it.each([
    ['reason', fingerprint(thrownAt(here), 'retries_exhausted')],
    ['class', fingerprint(thrownAt(here, 'no', 'TypeError'))],
    ['code', fingerprint(thrownAt(here, 'no', 'Error', { code: 'ECONNRESET' }))],
    ['status', fingerprint(thrownAt(here, 'no', 'Error', { status: 502 }))],
    ['place', fingerprint(thrownAt(here.replace('ChargeProcessor', 'RefundProcessor')))],
  ])('differs by %s', (_title, other) => {
    expect(other).not.toBe(fingerprint(thrownAt(here)));
  });

  it('without a frame of the application it is told by the message, without ids and numbers', () => {
    const bare = (message: string): Error => {
      const error = new Error(message);
      error.stack = `Error: ${message}`;
      return error;
    };
    const one = fingerprint(bare('Operation "charge:17" of tenant "acme" was given up before attempt 3'));
    expect(fingerprint(bare('Operation "charge:18" of tenant "globex" was given up before attempt 4'))).toBe(
      one,
    );
    expect(fingerprint(bare('Job 5f2b7c1d-aaaa was lost'))).toBe(
      fingerprint(bare('Job 00ff00ff-bbbb was lost')),
    );
    expect(fingerprint(bare('The bank is closed'))).not.toBe(one);
  });

  it('takes no frame of the library for one of the application, whatever folder it is in', () => {
    const thrown: unknown[] = [];
    for (const fail of [
      () => assertIdentity({ tenantId: '', operationKey: '' }),
      () => toJsonText('payload', 1n),
    ])
      try {
        fail();
      } catch (error) {
        thrown.push(error);
      }
    expect(thrown).toHaveLength(2);
    for (const error of thrown) {
      const { stack: _stack, ...withoutStack } = describeError(error);
      expect(fingerprint(error)).toBe(errorFingerprint('permanent_error', withoutStack));
    }
  });

  it('looks into causes for a frame of the application', () => {
    const outer = new Error('fetch failed', { cause: thrownAt(here) });
    outer.stack = 'TypeError: fetch failed\n    at node:internal/deps/undici/undici:1:1';
    const elsewhere = new Error('fetch failed', { cause: thrownAt('other (/app/dist/b.js:1:1)') });
    elsewhere.stack = outer.stack;
    expect(fingerprint(outer)).not.toBe(fingerprint(elsewhere));
  });

  it.each([[undefined], [null], ['text'], [17], [{}]])('takes anything that was thrown: %o', (thrown) => {
    expect(fingerprint(thrown)).toMatch(/^[0-9a-f]{16}$/);
  });
});
