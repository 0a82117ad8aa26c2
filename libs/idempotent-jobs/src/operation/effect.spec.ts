import { describe, expect, it } from 'vitest';
import { DEFAULT_KEY_RETENTION_MS, type Effect, EFFECTS, repeatableForMs } from './effect.js';

describe('effects', () => {
  it.each<[Effect, number | null]>([
    ['natural', null],
    ['transactional', null],
    ['keyed', 5_000],
    ['reconciled', 0],
    ['unrepeatable', 0],
  ])('a %s effect stays repeatable for %s ms when keys are remembered for 5,000 ms', (effect, ms) => {
    expect(repeatableForMs(effect, 5_000)).toBe(ms);
  });

  it('are these five', () => {
    expect(EFFECTS).toEqual(['natural', 'transactional', 'keyed', 'reconciled', 'unrepeatable']);
  });

  it('take it that services remember keys for a day', () => {
    expect(DEFAULT_KEY_RETENTION_MS).toBe(86_400_000);
  });
});
