import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ofDashboard, ofRules, opsMetrics } from './ops-metrics.js';
import { EXPORTED, HISTOGRAMS } from './pinned-metrics.js';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

describe('The alert rules and dashboards', () => {
  const uses = opsMetrics();

  it('are found', () => {
    expect(new Set(uses.map(({ file }) => file))).toEqual(
      new Set(['prometheus/idempotent-jobs.rules.yml', 'grafana/idempotent-jobs.json']),
    );
  });

  it('ask only for metrics that are exported, and for histograms by their parts', () => {
    expect(uses.filter(({ name }) => !(name in EXPORTED))).toEqual([]);
    expect(uses.filter(({ name, series }) => HISTOGRAMS.includes(name) !== (series !== name))).toEqual([]);
  });

  it('ask only for labels that the metric has', () => {
    const labelsOf = ({ groupedBy, matchers }: (typeof uses)[number]) => [
      ...groupedBy,
      ...matchers.map(({ label }) => label),
    ];
    expect(uses.filter((use) => labelsOf(use).some((label) => !(label in EXPORTED[use.name]!)))).toEqual([]);
  });

  it('compare labels with values that they can have', () => {
    const strange = uses.flatMap(({ name, matchers, expression }) =>
      matchers.flatMap(({ label, value }) => {
        const allowed = EXPORTED[name]?.[label];
        const values = value.startsWith('$') ? [] : value.split('|');
        return values
          .filter((one) => allowed?.includes(one) === false)
          .map((one) => ({ label, one, expression }));
      }),
    );
    expect(strange).toEqual([]);
  });

  it('the dashboard shows every metric that is exported', () => {
    const shown = new Set(uses.filter(({ file }) => file.startsWith('grafana/')).map(({ name }) => name));
    expect([...shown].sort()).toEqual(Object.keys(EXPORTED).sort());
  });
});

describe('The alert rules', () => {
  const rules = read('ops/prometheus/idempotent-jobs.rules.yml')
    .split(/^ {6}- (?=alert:)/m)
    .slice(1);
  const alerts = rules.map((rule) => ({ name: /^alert: (\w+)$/m.exec(rule)?.[1], rule }));
  const tests = read('ops/prometheus/idempotent-jobs.rules.test.yml')
    .split(/^ {2}- (?=name: )/m)
    .slice(1);
  const headings = read('docs/operations.md').match(/^#{2,} .*$/gm) ?? [];
  const anchors = headings.map((heading) => heading.replace(/^#+ /, '').toLowerCase().replaceAll(' ', '-'));

  it.each(alerts)('$name says how urgent it is, what it means, and where its runbook is', ({ rule }) => {
    expect(rule).toMatch(/^ {10}severity: (?:critical|warning)$/m);
    expect(rule).toMatch(/^ {10}summary: \S/m);
    expect(rule).toMatch(/^ {10}description: >-$/m);
    expect(anchors).toContain(/^ {10}runbook: docs\/operations\.md#(\S+)$/m.exec(rule)?.[1]);
  });

  it.each(alerts)('$name is tested: when it fires, and what does not make it fire', ({ name }) => {
    const titles = tests.map((test) => /^name: (.*)$/m.exec(test)?.[1]);
    expect(titles.filter((title) => title?.startsWith(`${name} fires `))).not.toEqual([]);
    expect(titles.filter((title) => title?.startsWith(`${name} does not fire `))).not.toEqual([]);
  });
});

describe('The dashboard', () => {
  interface Panel {
    readonly id: number;
    readonly type: string;
    readonly title: string;
    readonly description?: string;
    readonly datasource?: { readonly uid: string };
    readonly fieldConfig?: { readonly defaults: { readonly unit?: string } };
    readonly targets?: readonly {
      readonly legendFormat: string;
      readonly datasource: { readonly uid: string };
    }[];
  }
  const { panels, uid } = JSON.parse(read('ops/grafana/idempotent-jobs.json')) as {
    panels: Panel[];
    uid: string;
  };
  const charts = panels.filter(({ type }) => type !== 'row');

  it('has ids that are its own', () => {
    expect(uid).toBe('idempotent-jobs');
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
  });

  it.each(charts)(
    '"$title" says which question it answers, in which unit, from the chosen source',
    (panel) => {
      expect(panel.description).toMatch(/\?/);
      expect(panel.fieldConfig?.defaults.unit).toBeTruthy();
      expect(panel.datasource?.uid).toBe('${datasource}');
      for (const target of panel.targets ?? []) {
        expect(target.legendFormat).toBeTruthy();
        expect(target.datasource.uid).toBe('${datasource}');
      }
    },
  );
});

describe('ofRules', () => {
  it('reads expressions on one line, in quotes, and in blocks, up to where these end', () => {
    const yaml = [
      'groups:',
      '  - name: g',
      '    rules:',
      '      - alert: A',
      '        expr: a > 1',
      '      - alert: B',
      '        expr: |-',
      '          b',
      '',
      '            > 2',
      '        for: 5m',
      '      - record: c:d',
      "        expr: 'c'",
      '      - expr: >',
      '          e',
      '        alert: E',
    ];
    const found = ofRules(yaml.join('\n')).map((one) => one.replaceAll(/\s+/g, ' ').trim());
    expect(found).toEqual(['a > 1', 'b > 2', 'c', 'e']);
  });

  it('refuses a file in which an expression is written in a way that it does not know', () => {
    expect(() => ofRules('- alert: A\n  "expr": a\n')).toThrow('There are 1 rules, but 0 expressions');
  });
});

describe('ofDashboard', () => {
  it('reads the queries of panels, of panels in rows, and of variables', () => {
    const dashboard = {
      templating: { list: [{ query: { query: 'label_values(a, q)' } }, { query: 'prometheus' }] },
      panels: [
        { targets: [{ expr: 'b' }] },
        { type: 'row', panels: [{ targets: [{ expr: 'c' }, { expr: 'd' }] }] },
      ],
    };
    expect(ofDashboard(JSON.stringify(dashboard))).toEqual(['label_values(a, q)', 'b', 'c', 'd']);
  });
});
