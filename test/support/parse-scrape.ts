/** What a scrape says. */
export interface Scrape {
  /** Values by series, as Prometheus writes them, with labels in the order of the alphabet. */
  readonly series: Readonly<Record<string, number>>;
  /** By metric. */
  readonly types: Readonly<Record<string, string>>;
  readonly help: Readonly<Record<string, string>>;
}

/**
 * Reads Prometheus' text format, as much of it as metrics need that have no timestamps. Metrics without a series are left
 * out: exporters differ in whether they mention them.
 *
 * @throws Error for a line it cannot read, and for a series that comes twice
 */
export function parseScrape(text: string): Scrape {
  const series: Record<string, number> = {};
  const types: Record<string, string> = {};
  const help: Record<string, string> = {};
  const seen = new Set<string>();
  for (const line of text.split('\n').filter((each) => each !== '')) {
    const comment = /^# (HELP|TYPE|UNIT) (\S+) (.*)$/.exec(line);
    if (comment !== null) {
      const [, what, name = '', said = ''] = comment;
      if (what === 'TYPE') types[name] = said;
      if (what === 'HELP') help[name] = said;
      continue;
    }
    const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (sample === null) throw new Error(`This is no sample: ${line}`);
    const [, name = '', labels = '', value = ''] = sample;
    const key = labels === '' ? name : `${name}{${sorted(labels, line)}}`;
    if (key in series) throw new Error(`${key} comes twice`);
    series[key] = value === '+Inf' ? Infinity : Number(value);
    seen.add(name).add(name.replace(/_(bucket|sum|count)$/, ''));
  }
  const mentioned = (facts: Record<string, string>): Record<string, string> =>
    Object.fromEntries(Object.entries(facts).filter(([name]) => seen.has(name)));
  return { series, types: mentioned(types), help: mentioned(help) };
}

function sorted(labels: string, line: string): string {
  const found = labels.match(/[a-zA-Z_]\w*="(?:[^"\\]|\\.)*"/g) ?? [];
  if (found.join(',') !== labels) throw new Error(`These are no labels: ${line}`);
  return found.toSorted().join(',');
}
