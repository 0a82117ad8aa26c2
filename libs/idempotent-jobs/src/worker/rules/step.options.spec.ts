import { describe, expect, it } from 'vitest';
import type { OperationRules } from './operation-rules.js';
import { rulesOfStep } from './step.options.js';

const HANDLER = {
  effect: 'natural',
  timeoutMs: 1_000,
  claim: { origin: 'job' },
  policy: {},
  results: {},
} as unknown as OperationRules;

const ofMail = (handler: OperationRules): OperationRules =>
  rulesOfStep('mail', handler, { effect: 'keyed' }, false);

describe('the rules of a step', () => {
  it('are the same object for the same options, so that claims share statements', () => {
    expect(ofMail(HANDLER)).toBe(ofMail(HANDLER));
  });

  it("are shared where the handler's rules were copied for a dependency's key", () => {
    expect(ofMail({ ...HANDLER, dependency: undefined })).toBe(ofMail(HANDLER));
  });

  it("are not shared between two of the processor's policies", () => {
    const other = { ...HANDLER, timeoutMs: 2_000, policy: { ...HANDLER.policy } };
    expect(ofMail(other)).toMatchObject({ timeoutMs: 2_000, effect: 'keyed' });
    expect(ofMail(other)).not.toBe(ofMail(HANDLER));
  });
});
