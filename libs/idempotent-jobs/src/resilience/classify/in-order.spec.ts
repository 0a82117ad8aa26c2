import { describe, expect, it } from 'vitest';
import type { Classify } from './classify.js';
import { inOrder } from './in-order.js';

const says: Classify = () => 'permanent';
const knowsNothing: Classify = () => undefined;
const isBroken: Classify = () => {
  throw new Error('a rule with a bug');
};

describe('inOrder', () => {
  it('is no rule where there are none', () => {
    expect(inOrder()).toBeUndefined();
    expect(inOrder(undefined, undefined)).toBeUndefined();
  });

  it('is the only rule that there is', () => {
    expect(inOrder(undefined, says, undefined)).toBe(says);
  });

  it('lets the first rule that tells anything have its say', () => {
    const rule = inOrder(knowsNothing, undefined, says, () => 'in_doubt');
    expect(rule?.(new Error())).toBe('permanent');
  });

  it('passes over a rule that throws', () => {
    expect(inOrder(isBroken, says)?.(new Error())).toBe('permanent');
    expect(inOrder(isBroken, isBroken)?.(new Error())).toBeUndefined();
  });

  it('tells nothing where no rule does', () => {
    expect(inOrder(knowsNothing, knowsNothing)?.(new Error())).toBeUndefined();
  });

  it('hands each rule the error itself', () => {
    const seen: unknown[] = [];
    const looks: Classify = (error) => {
      seen.push(error);
      return undefined;
    };
    const error = { not: 'an Error' };
    inOrder(looks, looks)?.(error);
    expect(seen).toEqual([error, error]);
    expect(seen.every((one) => one === error)).toBe(true);
  });
});
