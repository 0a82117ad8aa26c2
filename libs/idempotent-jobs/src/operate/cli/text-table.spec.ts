import { describe, expect, it } from 'vitest';
import { textTable } from './text-table.js';

describe('textTable', () => {
  it('aligns text to the left and numbers to the right', () => {
    const rows = [
      ['charges', 12, 'a'],
      ['mails', 3, undefined],
    ];
    expect(textTable(['queue', 'waiting', 'note'], rows)).toEqual([
      'queue    waiting  note',
      'charges       12  a',
      'mails          3',
    ]);
  });

  it('keeps a row on one line, and control characters away from the terminal', () => {
    expect(textTable(['error'], [['a\nb\u001B[31mred']])).toEqual(['error', String.raw`a\nb\u001b[31mred`]);
  });

  it('cuts no character in half', () => {
    expect(textTable(['error'], [['😀'.repeat(200)]])[1]).toBe(`${'😀'.repeat(79)}…`);
  });

  it('shortens what is too long', () => {
    expect(textTable(['error'], [['x'.repeat(200)]])[1]).toBe(`${'x'.repeat(79)}…`);
  });
});
