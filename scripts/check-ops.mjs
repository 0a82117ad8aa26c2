// Checks ops/ with promtool: that the rules and the dashboards' queries are valid, and that each alert fires when its tests
// say so and not otherwise. The names of what they ask for are checked by test/ops/ops-metrics.spec.ts.
// Exit code 1: promtool found something, or is missing.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ops = fileURLToPath(new URL('../ops', import.meta.url));
const files = (suffix) =>
  readdirSync(ops, { recursive: true })
    .filter((name) => name.endsWith(suffix))
    .map((name) => join(ops, name));

function promtool(...words) {
  const { error, status } = spawnSync('promtool', words, { stdio: 'inherit' });
  if (error?.code === 'ENOENT') {
    console.error(
      'promtool is not on the PATH. It comes with Prometheus: apt-get install prometheus (Debian, Ubuntu), ' +
        'brew install prometheus (macOS), or https://prometheus.io/download. No server has to run.',
    );
    process.exit(1);
  }
  if (error) throw error;
  if (status !== 0) process.exit(1);
}

/** The queries of a dashboard's panels, as Grafana sends them. The other variables stand inside of strings. */
function queriesIn(value) {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    key === 'expr' ? [inner.replaceAll('$__rate_interval', '2m')] : queriesIn(inner),
  );
}

/** promtool reads rules only, so each query becomes one. JSON is YAML. */
function checkDashboards() {
  const folder = mkdtempSync(join(tmpdir(), 'idempotent-jobs-ops-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  for (const [index, file] of files('.json').entries()) {
    const rules = queriesIn(JSON.parse(readFileSync(file, 'utf8'))).map((expr, number) => ({
      record: `dashboard:query_${number}`,
      expr,
    }));
    console.log(`Checking the queries of ${file}`);
    const path = join(folder, `${index}.rules.yml`);
    writeFileSync(path, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }));
    promtool('check', 'rules', path);
  }
}

promtool('check', 'rules', '--lint=all', '--lint-fatal', ...files('.rules.yml'));
promtool('test', 'rules', ...files('.rules.test.yml'));
checkDashboards();
