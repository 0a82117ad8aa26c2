import { describe, expect, it } from 'vitest';
import { refusal } from '../../dead-letters/judge-letter.js';
import { inOurWords } from './run-cli.js';

describe('inOurWords', () => {
  it('names the option of the command line where a refusal names one of a method', () => {
    expect(inOurWords(refusal('letter-1', 'deadline_passed'))).toMatch(
      /Give another: --deadline <time>\. Nothing was changed\.$/,
    );
  });

  it.each(['no_identity', 'conflict', 'no_payload'] as const)(
    'says of %s where the method is that helps, since no command does that',
    (reason) => {
      expect(inOurWords(refusal('letter-1', reason))).toContain(
        'with redriveEdited() in the application, or discard it',
      );
    },
  );

  it('leaves alone what needs no other words', () => {
    const underWay = refusal('letter-1', 'under_way');
    expect(inOurWords(underWay)).toBe(underWay.message);
    const words = 'Give another: { deadline }, with redriveEdited()';
    expect(inOurWords(new Error(words))).toBe(words);
  });
});
