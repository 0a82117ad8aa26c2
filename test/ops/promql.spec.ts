import { describe, expect, it } from 'vitest';
import { baseNameOf, metricsIn } from './promql.js';

const namesIn = (expression: string): string[] => metricsIn(expression).map(({ series }) => series);
const groupsIn = (expression: string): (readonly string[])[] =>
  metricsIn(expression).map(({ groupedBy }) => groupedBy);

describe('metricsIn', () => {
  it.each([
    ['up', ['up']],
    ['max(up)', ['up']],
    ['max by (queue) (up) > 60', ['up']],
    ['sum(rate(a_total[5m])) by (queue) / sum(rate(b_total[5m])) by (queue)', ['a_total', 'b_total']],
    ['max by (q) (a) > 0 unless on (q) sum by (q) (increase(b[3m])) > 0', ['a', 'b']],
    ['a * on (q) group_left (owner) b and ignoring (x) c', ['a', 'b', 'c']],
    ['a * on (q) group_left b', ['a', 'b']],
    ['a offset 5m == bool 2 or a @ 1609746000', ['a', 'a']],
    ['max_over_time((max by (q) (a))[10m:30s]) > 1e3', ['a']],
    ['topk(10, a) + 0.5 * b - -1.5e-3', ['a', 'b']],
    ['label_replace(rate(a[$__rate_interval]), "job", "$1", "exported_job", "(.+)")', ['a']],
    ['rate(a{x="$x"}[${window}]) > $limit', ['a']],
    ['a # not b\n+ c', ['a', 'c']],
    ['sum without (instance) (a)', ['a']],
    ['absent(a) or vector(0) or time() > 5m30s', ['a']],
    ['queue:retries:rate5m > a', ['a']],
    ['label_values(a, queue)', ['a']],
    ['label_values(a{x="y, z"}, queue)', ['a']],
    ['label_values(queue)', []],
  ])('finds the metrics of %s', (expression, names) => {
    expect(namesIn(expression)).toEqual(names);
  });

  it('reads the labels that a selector compares, whatever their values hold', () => {
    expect(metricsIn(`a{b="c", d!="}", e=~'f|\\'g', h!~"(i)",} + j{}`)).toEqual([
      {
        series: 'a',
        name: 'a',
        matchers: [
          { label: 'b', operator: '=', value: 'c' },
          { label: 'd', operator: '!=', value: '}' },
          { label: 'e', operator: '=~', value: "f|\\'g" },
          { label: 'h', operator: '!~', value: '(i)' },
        ],
        groupedBy: [],
      },
      { series: 'j', name: 'j', matchers: [], groupedBy: [] },
    ]);
  });

  it.each([
    ['sum by (a, b) (x)', [['a', 'b']]],
    ['sum(x + y) by (a)', [['a'], ['a']]],
    ['sum by (a) (max by (a, b) (x)) / y', [['a', 'b'], []]],
    ['sum by (a) (rate(x[5m])) / on (c) sum by (b) (y)', [['a'], ['b']]],
    ['sum(x) / sum by (a) (y)', [[], ['a']]],
    ['max(sum(x) by (a))', [['a']]],
    ['sum without (a) (x)', [[]]],
    ['label_values(x, a)', [['a']]],
  ])('tells which labels the result of %s is told apart by', (expression, groups) => {
    expect(groupsIn(expression)).toEqual(groups);
  });

  it.each(['sum(a', 'a)', '{x="y"}', 'a{x}', 'a{x="y"', 'sum by (a', 'a ? b'])(
    'refuses %s, which it cannot read',
    (expression) => {
      expect(() => metricsIn(expression)).toThrow(/^Cannot read .* in: /s);
    },
  );
});

describe('baseNameOf', () => {
  it.each([
    ['job_wait_seconds_bucket', 'job_wait_seconds'],
    ['job_retry_count_sum', 'job_retry_count'],
    ['job_retry_count_count', 'job_retry_count'],
    ['jobs_processed_total', 'jobs_processed_total'],
    ['dispatch_pending', 'dispatch_pending'],
  ])('%s belongs to %s', (series, name) => {
    expect(baseNameOf(series)).toBe(name);
  });
});
