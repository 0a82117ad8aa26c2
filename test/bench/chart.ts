import type { Measurement } from './comparison.js';

const ROW = 24;
const LABELS = 190;
const WIDTH = 760;
const COLORS: Readonly<Record<string, string>> = { bullmq: '#8b949e', idempotent: '#1f6feb' };

/** Bars of jobs per second, a group for each backend and concurrency, each bar with its ratio to the first contender. */
export function chartOf(measurements: readonly Measurement[]): string {
  const groups = new Map<string, Measurement[]>();
  for (const measurement of measurements) {
    const title = `${measurement.backend}, concurrency ${measurement.concurrency}`;
    groups.set(title, [...(groups.get(title) ?? []), measurement]);
  }
  const lines: string[] = [];
  let y = 0;
  for (const [title, bars] of groups) {
    y += ROW * 1.5;
    lines.push(`<text x="0" y="${y}" font-weight="bold">${title}</text>`);
    const most = Math.max(...bars.map(({ jobsPerSecond }) => jobsPerSecond));
    for (const bar of bars) {
      y += ROW;
      lines.push(...barOf(bar, y, ((WIDTH - LABELS - 170) * bar.jobsPerSecond) / most));
    }
  }
  const node = measurements[0]?.node ?? '';
  y += ROW * 1.5;
  lines.push(
    `<text x="0" y="${y}" fill="#656d76">Jobs per second, and times plain BullMQ in the same round; Node ${node}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + ROW}" font-family="sans-serif" font-size="13">
${lines.join('\n')}
</svg>
`;
}

function barOf({ contender, jobsPerSecond, ratio }: Measurement, y: number, width: number): string[] {
  const color = COLORS[contender] ?? '#bf8700';
  const figure = `${jobsPerSecond.toLocaleString('en')} · ${ratio.median.toFixed(2)} ×`;
  return [
    `<text x="0" y="${y}">${contender}</text>`,
    `<rect x="${LABELS}" y="${y - 13}" width="${Math.max(1, Math.round(width))}" height="16" fill="${color}"/>`,
    `<text x="${LABELS + Math.round(width) + 8}" y="${y}">${figure}</text>`,
  ];
}
