import { describe, expect, it } from 'vitest';
import { textTable } from './text-table.js';

describe('textTable', () => {
  it('aligns text to the left and numbers to the right', () => {
    const rows = [
      ['charges', 12, 'a'],
      ['mails', 3, undefined],
    ];
    expect(textTable(['queue', 'waiting', 'note'], rows)).toBe(
      'queue    waiting  note\ncharges       12  a\nmails          3',
    );
  });

  it('keeps a row on one line, and control characters away from the terminal', () => {
    expect(textTable(['error'], [['a\nb\u001B[31mred']])).toBe('error\na b [31mred');
  });

  it('shortens what is too long', () => {
    expect(textTable(['error'], [['x'.repeat(200)]]).split('\n')[1]).toBe(`${'x'.repeat(79)}…`);
  });
});
