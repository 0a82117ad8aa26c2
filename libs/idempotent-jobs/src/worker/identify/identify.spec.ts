import { createSecretKey } from 'node:crypto';
import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { isEnvelope, provenanceOf } from '../../producer/envelope.js';
import { InvalidIdentityError, RecordUnreadableError, TenantMismatchError } from '../../operation/errors.js';
import { canonicalRequest, fingerprintOf } from '../../operation/json.js';
import { jobIdOf } from '../../operation/identity.js';
import { payloadBinding, Encryption } from '../../ledger/encryption/encryption.js';
import { Signer } from '../../producer/signer.js';
import { type Identified, type Identify, JobIdentifier, type Unidentified } from './identify.js';

const acme = { tenantId: 'acme', operationKey: 'charge:1' };
const identifyBy = (
  asked: Job,
  rule: Identify | undefined,
  encryption: Encryption,
): Identified | Unidentified =>
  new JobIdentifier(encryption, new Signer({ signing: undefined })).identify(
    asked,
    provenanceOf(asked),
    rule,
  );
const identify = (asked: Job, rule: Identify | undefined): Identified | Unidentified =>
  identifyBy(asked, rule, new Encryption({}));
const globex = { tenantId: 'globex', operationKey: 'charge:1' };

/** Without an id of its own, that of acme's operation, where the data says that it is one. */
function job(data: unknown, id: string | undefined = isEnvelope(data) ? jobIdOf(acme) : '7'): Job {
  return { id, name: 'charge', queueName: 'charges', data, timestamp: 1_700_000_000_000 } as Job;
}

function envelope(operation: object, payload: unknown = { amount: 5 }): unknown {
  return { operation: { fingerprint: 'as written by the producer', ...operation }, payload };
}

function accepted(answer: Identified | Unidentified): Identified {
  if (answer.kind !== 'identified') throw answer.error;
  return answer;
}

function refused(answer: Identified | Unidentified): Unidentified {
  if (answer.kind !== 'refused') throw new Error(`Identified as ${answer.operationKey}`);
  return answer;
}

describe('identify: encrypted jobs', () => {
  const encryption = new Encryption({
    encryption: { keys: new Map([['k1', createSecretKey(Buffer.alloc(32, 1))]]), current: 'k1' },
  });
  const encryptedFor = (identity: typeof acme): unknown =>
    JSON.parse(encryption.encrypt('{"amount":5}', payloadBinding(identity)));

  it('has the fingerprint and the payload of what was asked for in plain text', () => {
    const encrypted = accepted(identifyBy(job(envelope(acme, encryptedFor(acme))), undefined, encryption));
    const plain = accepted(identify(job(envelope(acme)), undefined));
    expect(encrypted).toEqual(plain);
  });

  it('opens the payload of an iteration as its schedule had it encrypted', () => {
    const id = `repeat:${jobIdOf(acme)}:1767225600000`;
    const data = envelope({ ...acme, isSchedule: true }, encryptedFor(acme));
    expect(identifyBy(job(data, id), undefined, encryption)).toMatchObject({
      operationKey: 'charge:1:2026-01-01T00:00:00.000Z',
      payload: { amount: 5 },
    });
  });

  it('neither runs nor refuses what it cannot read: it throws', () => {
    const read = (data: unknown, by: Encryption) => () => identifyBy(job(data), undefined, by);
    expect(read(envelope(acme, encryptedFor(acme)), new Encryption({}))).toThrow(RecordUnreadableError);
    expect(read(envelope(acme, encryptedFor(globex)), encryption)).toThrow(RecordUnreadableError);
  });

  it('refuses data of other producers that calls itself encrypted', () => {
    const answer = refused(identifyBy(job(encryptedFor(acme)), () => acme, encryption));
    expect(answer).toMatchObject({ reason: 'payload_invalid' });
  });
});

/** JSON as another program may send it: deeper than this one's stack. */
function deeplyNested(): unknown {
  return JSON.parse(`${'[{"a":'.repeat(50_000)}1${'}]'.repeat(50_000)}`);
}

describe('identify: jobs of IdempotentQueue', () => {
  it('reads identity, payload and deadline from the envelope', () => {
    const data = envelope({ ...acme, deadlineAt: '2026-05-01T10:00:00.000Z' });
    expect(identify(job(data, jobIdOf(acme)), undefined)).toEqual({
      kind: 'identified',
      tenantId: 'acme',
      operationKey: 'charge:1',
      payload: { amount: 5 },
      canonical: '["acme","charge",{"amount":5}]',
      fingerprint: fingerprintOf('["acme","charge",{"amount":5}]'),
      availableAt: 1_700_000_000_000,
      rowMs: undefined,
      deadline: new Date(Date.UTC(2026, 4, 1, 10)),
      trace: undefined,
      parentTrace: undefined,
    });
  });

  describe('that are iterations of a schedule', () => {
    const schedule = envelope({ ...acme, isSchedule: true });
    const at = (millis: string, of = acme): string => `repeat:${jobIdOf(of)}:${millis}`;

    it.each([
      ['1767225600000', 'charge:1:2026-01-01T00:00:00.000Z'],
      ['1767225600001', 'charge:1:2026-01-01T00:00:00.001Z'],
      ['0', 'charge:1:1970-01-01T00:00:00.000Z'],
    ])('the key is completed by the time in the id: %s', (millis, operationKey) => {
      expect(identify(job(schedule, at(millis)), undefined)).toMatchObject({
        kind: 'identified',
        tenantId: 'acme',
        operationKey,
      });
    });

    it.each([
      ['of another tenant', schedule, at('1', globex)],
      ['of no scheduler', schedule, jobIdOf(acme)],
      ['of another kind', schedule, '7'],
      ['without a time', schedule, `repeat:${jobIdOf(acme)}`],
      ['with a time that is none', schedule, at('soon')],
      ['with a time that no calendar has', schedule, at('9'.repeat(16))],
      ['with more than a time', schedule, at('1:2')],
      ['of an iteration, whose data does not say so', envelope(acme), at('1')],
    ])('an id %s is refused', (_what, data, id) => {
      const { reason, error } = refused(identify(job(data, id), undefined));
      expect(reason).toBe('tenant_mismatch');
      expect(error).toBeInstanceOf(TenantMismatchError);
    });
  });

  it.each([
    { title: 'of whoever asked for it', operation: {}, parentTrace: 'asked' },
    { title: 'that its redrive began', operation: { redriveTrace: 'redriven' }, parentTrace: 'redriven' },
    { title: 'of its own, for an iteration', operation: { isSchedule: true }, parentTrace: undefined },
  ])('has its attempts belong to the trace $title', ({ operation, parentTrace }) => {
    const id = 'isSchedule' in operation ? `repeat:${jobIdOf(acme)}:1767225600000` : jobIdOf(acme);
    const data = envelope({ ...acme, trace: 'asked', ...operation });
    expect(accepted(identify(job(data, id), undefined))).toMatchObject({ trace: 'asked', parentTrace });
  });

  it.each([{ traceparent: '00-ab-cd-01' }, 'a text', null, undefined])(
    'hands on the trace context of the envelope: %o',
    (trace) => {
      expect(accepted(identify(job(envelope({ ...acme, trace })), undefined)).trace).toEqual(trace);
    },
  );

  it('does not ask the identify rule about them', () => {
    const rule = (): never => {
      throw new Error('must not be asked');
    };
    expect(identify(job(envelope(acme)), rule)).toMatchObject(acme);
  });

  it('believes the payload, not the fingerprint that came with it', () => {
    const answer = accepted(identify(job(envelope({ ...acme, fingerprint: 'forged' })), undefined));
    expect(answer.fingerprint).toMatch(/^[\da-f]{64}$/);
  });

  it('has no deadline when none was given', () => {
    expect(accepted(identify(job(envelope(acme)), undefined)).deadline).toBeUndefined();
  });

  it.each(['soon', '', 0, 1_777_629_600_000, null, true, {}, ['2026-05-01'], '-271821-04-20T00:00:00.000Z'])(
    'is refused with a deadline that is no time of Postgres: %o',
    (deadlineAt) => {
      const answer = refused(identify(job(envelope({ ...acme, deadlineAt })), undefined));
      expect(answer.reason).toBe('payload_invalid');
      expect(answer.error.message).toMatch(/its deadline must/);
    },
  );

  it.each(['order\0 17', 'order-\ud800', 'x'.repeat(256)])(
    'refuses a job under an id that the ledger cannot keep: %o',
    (id) => {
      const answer = refused(identify(job({}, id), () => acme));
      expect(answer.reason).toBe('payload_invalid');
      expect(answer.error.message).not.toMatch(/\0|\ud800|x{256}/u);
    },
  );

  it.each([
    [{ tenantId: '', operationKey: 'charge:1' }, 'The tenant id is empty.'],
    [{ operationKey: 'charge:1' }, 'The tenant id must be a string, but is undefined.'],
    [{ tenantId: 'acme', operationKey: 'x'.repeat(401) }, 'The operation key has 401 characters'],
  ])('refuses an envelope without a valid identity', (operation, problem) => {
    const answer = refused(identify(job(envelope(operation), '7'), undefined));
    expect(answer.reason).toBe('identity_missing');
    expect(answer.error).toBeInstanceOf(InvalidIdentityError);
    expect(answer.error.message).toContain(`Job 7 of queue "charges" has no valid operation: ${problem}`);
  });

  it('refuses a job whose data names another tenant than its id was made of', () => {
    const answer = refused(identify(job(envelope(globex), jobIdOf(acme)), undefined));
    expect(answer.reason).toBe('tenant_mismatch');
    expect(answer.error).toBeInstanceOf(TenantMismatchError);
    expect(answer.error.message).toContain('tenant "globex"');
  });

  it('refuses a job whose data names another key than its id was made of', () => {
    const data = envelope({ ...acme, operationKey: 'charge:2' });
    expect(refused(identify(job(data, jobIdOf(acme)), undefined)).reason).toBe('tenant_mismatch');
  });

  it('accepts the id of a redriven job, which carries a suffix', () => {
    expect(accepted(identify(job(envelope(acme), `${jobIdOf(acme)}-r2`), undefined))).toMatchObject(acme);
  });

  it.each(['4711', 'my-own-id', '', `${jobIdOf(acme)}x`, `x${jobIdOf(acme)}`])(
    'are not believed under an id that the library did not give: %s',
    (id) => {
      expect(refused(identify(job(envelope(acme), id), undefined)).reason).toBe('tenant_mismatch');
    },
  );

  it.each(['4711', 'my-own-id', 'op-17', 'repeat:op-17:1'])(
    "are a producer's plain data under an id of its own: %s",
    (id) => {
      const answer = identify(job(envelope(acme), id), () => globex);
      expect(accepted(answer)).toMatchObject({ ...globex, payload: envelope(acme), trace: undefined });
    },
  );

  it("are nobody's plain data under an id that the library has given to another", () => {
    const answer = refused(identify(job(envelope(globex), jobIdOf(acme)), () => globex));
    expect(answer.reason).toBe('tenant_mismatch');
  });

  it.each([
    ['null', null],
    ['a list', [1, 2]],
    ['a text', 'plain'],
    ['nothing', undefined],
  ])('takes any payload in an envelope: %s', (_what, payload) => {
    const data = { operation: { ...acme, fingerprint: 'f' }, payload };
    expect(accepted(identify(job(data), undefined)).payload).toEqual(payload);
  });
});

describe('identify: jobs of other producers', () => {
  it('asks the rule, and takes the whole data as the payload', () => {
    const data = { shop: 'acme', order: 17 };
    const answer = identify(job(data), (asked) => ({
      tenantId: (asked.data as typeof data).shop,
      operationKey: `charge:${(asked.data as typeof data).order}`,
    }));
    expect(accepted(answer)).toMatchObject({ tenantId: 'acme', operationKey: 'charge:17', payload: data });
    expect(accepted(answer).deadline).toBeUndefined();
    expect(accepted(answer).trace).toBeUndefined();
  });

  it('refuses them without a rule, and says how to give one', () => {
    const answer = refused(identify(job({ order: 17 }), undefined));
    expect(answer.reason).toBe('identity_missing');
    expect(answer.error.message).toContain('Job 7 of queue "charges" has no operation');
    expect(answer.error.message).toContain('identify: (job) => ({ tenantId, operationKey })');
  });

  it('refuses a job for which the rule throws, and keeps what it threw', () => {
    const cause = new Error('no such order');
    const answer = refused(
      identify(job({}), () => {
        throw cause;
      }),
    );
    expect(answer.reason).toBe('identity_missing');
    expect(answer.error.message).toContain('identify() could not name the operation of job 7');
    expect(answer.error.cause).toBe(cause);
  });

  it.each([
    ['null', null, 'a thrown null'],
    ['undefined', undefined, 'a thrown undefined'],
    ['an object without a prototype', Object.create(null), 'a thrown object'],
    ['a text', 'no such order', 'no such order'],
  ])('refuses a job for which the rule throws %s', (_what, thrown, told) => {
    const answer = refused(
      identify(job({}), () => {
        throw thrown;
      }),
    );
    expect(answer.reason).toBe('identity_missing');
    expect(answer.error).toBeInstanceOf(InvalidIdentityError);
    expect(answer.error.message).toBe(
      `identify() could not name the operation of job 7 of queue "charges": ${told}`,
    );
  });

  it.each([
    ['undefined', undefined],
    ['null', null],
    ['an empty tenant', { tenantId: '', operationKey: 'k' }],
    ['a key that is a number', { tenantId: 'acme', operationKey: 17 }],
    ['a text', 'acme'],
  ])('refuses a job for which the rule answers %s', (_what, answer) => {
    expect(refused(identify(job({ order: 17 }), () => answer as never)).reason).toBe('identity_missing');
  });

  it.each([
    ['null', null],
    ['a text', 'operation payload'],
    ['a list', ['operation', 'payload']],
    ['a null operation', { operation: null, payload: {} }],
    ['an operation without a fingerprint', { operation: acme, payload: {} }],
    ['an operation without a payload', { operation: { ...acme, fingerprint: 'f' } }],
  ])('does not take data of another shape for an envelope: %s', (_what, data) => {
    const answer = identify(job(data), () => ({ tenantId: 'by-rule', operationKey: 'k' }));
    expect(accepted(answer)).toMatchObject({ tenantId: 'by-rule', payload: data });
  });
});

describe('identify: payloads that try something', () => {
  it('keeps an own "__proto__" of the payload as data, and gives it a part in the fingerprint', () => {
    const payload = JSON.parse('{"amount":5,"__proto__":{"isAdmin":true}}') as Record<string, unknown>;
    const answer = accepted(identify(job(envelope(acme, payload)), undefined));
    expect(JSON.stringify(answer.payload)).toBe('{"amount":5,"__proto__":{"isAdmin":true}}');
    expect(({} as { isAdmin?: boolean }).isAdmin).toBeUndefined();
    expect(answer.fingerprint).not.toBe(fingerprintOf(canonicalRequest(acme, 'charge', { amount: 5 })));
  });

  it('takes no identity from the prototype that an envelope brings', () => {
    const data: unknown = JSON.parse(
      '{"operation":{"fingerprint":"f","__proto__":{"tenantId":"acme","operationKey":"k"}},"payload":{}}',
    );
    expect(refused(identify(job(data), undefined)).reason).toBe('identity_missing');
  });

  it.each([
    ['in an envelope', () => envelope(acme, deeplyNested())],
    ['as plain data', () => deeplyNested()],
  ])('refuses a payload nested deeper than the stack instead of throwing: %s', (_where, data) => {
    const answer = refused(identify(job(data()), () => acme));
    expect(answer.reason).toBe('payload_invalid');
    expect(answer.error.message).toMatch(
      /^The payload of job \S+ of queue "charges" cannot be read: Maximum call stack size exceeded$/,
    );
    expect(answer.error.cause).toBeInstanceOf(RangeError);
  });

  it('refuses a number that JSON could not have meant', () => {
    const data = envelope(acme, JSON.parse('{"amount":1e999}'));
    expect(refused(identify(job(data), undefined)).reason).toBe('payload_invalid');
  });
});
