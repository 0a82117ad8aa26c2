import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type MetricUse, metricsIn } from './promql.js';

/** An expression of an alert or a dashboard, and the file it is from, as a path below `ops/`. */
export interface OpsExpression {
  readonly file: string;
  readonly expression: string;
}

const OPS = fileURLToPath(new URL('../../ops', import.meta.url));

/** Every use of a metric in the alert rules and dashboards. Throws on an expression that it cannot read. */
export function opsMetrics(folder = OPS): (OpsExpression & MetricUse)[] {
  return opsExpressions(folder).flatMap((from) =>
    metricsIn(from.expression).map((use) => Object.assign(use, from)),
  );
}

/** The expressions of all rule files (not of their tests) and dashboards below the folder. */
export function opsExpressions(folder = OPS): OpsExpression[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => name.replaceAll('\\', '/'))
    .sort()
    .flatMap((file) => {
      const read = file.endsWith('.rules.yml') ? ofRules : file.endsWith('.json') ? ofDashboard : undefined;
      const expressions = read?.(readFileSync(join(folder, file), 'utf8')) ?? [];
      return expressions.map((expression) => ({ file, expression }));
    });
}

/**
 * The expressions of a rule file: `expr: …` on one line, or as a block (`|`, `|-`, `>`, `>-`) that is indented deeper.
 * There must be one for each rule, so that none is overlooked that is written in another way.
 */
export function ofRules(yaml: string): string[] {
  const lines = yaml.split(/\r?\n/);
  const expressions = lines.flatMap((line, index) => {
    const { indent = '', value } = /^(?<indent>\s*(?:- )?)expr:\s*(?<value>.*)$/.exec(line)?.groups ?? {};
    if (value === undefined) return [];
    if (!/^[|>]/.test(value)) return [value.replace(/^(['"])(.*)\1$/, '$2')];
    const rest = lines.slice(index + 1);
    const end = rest.findIndex((next) => next.trim() !== '' && depthOf(next) <= indent.length);
    return [rest.slice(0, end === -1 ? undefined : end).join('\n')];
  });
  const rules = lines.filter((line) => /^\s*(?:- )?(?:alert|record):/.test(line)).length;
  if (expressions.filter((one) => one.trim() !== '').length !== rules)
    throw new Error(`There are ${rules} rules, but ${expressions.length} expressions`);
  return expressions;
}

/** The queries of a dashboard: of its panels, in rows or not, and of its variables that ask for labels. */
export function ofDashboard(json: string): string[] {
  const expressions: string[] = [];
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    for (const [key, inner] of Object.entries(value)) {
      if (typeof inner !== 'string') walk(inner);
      else if (key === 'expr' || (key === 'query' && inner.startsWith('label_values(')))
        expressions.push(inner);
    }
  };
  walk(JSON.parse(json));
  return expressions;
}

const depthOf = (line: string): number => line.length - line.trimStart().length;
