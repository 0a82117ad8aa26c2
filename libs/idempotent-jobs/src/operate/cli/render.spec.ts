import { describe, expect, it } from 'vitest';
import { type Cell, type Columns, textTable } from './render.js';

/** Columns that show the cells of rows in their order. */
function columns(...headers: string[]): Columns<Cell[]> {
  return Object.fromEntries(headers.map((header, index) => [header, (row: Cell[]) => row[index]]));
}

describe('textTable', () => {
  it('aligns text to the left and numbers to the right', () => {
    const rows = [
      ['charges', 12, 'a'],
      ['mails', 3, undefined],
    ];
    expect(textTable(rows, columns('queue', 'waiting', 'note'))).toEqual([
      'queue    waiting  note',
      'charges       12  a',
      'mails          3',
    ]);
  });

  it('keeps a row on one line, and control characters away from the terminal', () => {
    expect(textTable([['a\nb\u001B[31mred']], columns('error'))).toEqual([
      'error',
      String.raw`a\nb\u001b[31mred`,
    ]);
  });

  it('cuts no character in half', () => {
    expect(textTable([['😀'.repeat(200)]], columns('error'))[1]).toBe(`${'😀'.repeat(79)}…`);
  });

  it('shortens what is too long', () => {
    expect(textTable([['x'.repeat(200)]], columns('error'))[1]).toBe(`${'x'.repeat(79)}…`);
  });
});
