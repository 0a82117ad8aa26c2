import type { Verdict } from './judge.js';

const COLUMNS: readonly (readonly [string, string, keyof Verdict])[] = [
  ['', 'operations', 'operations'],
  ['', 'charges', 'charges'],
  ['duplicate', 'charges', 'duplicateCharges'],
  ['duplicate', 'mails', 'duplicateMails'],
  ['mails to the', 'wrong tenant', 'wrongTenantMails'],
  ['', 'lost', 'lost'],
  ['in', 'doubt', 'inDoubt'],
  ['dead', 'letters', 'deadLetters'],
  ['', 'seconds', 'seconds'],
];

/** One row for each variant. */
export function table(rows: readonly { readonly title: string; readonly verdict: Verdict }[]): string {
  const cells = [
    ['', ...COLUMNS.map(([above]) => above)],
    ['', ...COLUMNS.map(([, below]) => below)],
    ...rows.map(({ title, verdict }) => [
      title,
      ...COLUMNS.map(([, , key]) => (key === 'seconds' ? verdict[key].toFixed(1) : String(verdict[key]))),
    ]),
  ];
  const widths = [0, ...COLUMNS.map((_, index) => index + 1)].map((column) =>
    Math.max(...cells.map((row) => row[column]?.length ?? 0)),
  );
  const lines = cells.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
  const rule = '-'.repeat(lines.at(-1)?.length ?? 0);
  return [...lines.slice(0, 2), rule, ...lines.slice(2)].join('\n');
}
