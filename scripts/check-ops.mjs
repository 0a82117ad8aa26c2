// Checks ops/prometheus with promtool: that the rules are valid, and that each alert fires when its tests say so and not
// otherwise. What the rules and the dashboard ask for by name is checked by test/support/ops-metrics.spec.ts.
// Exit code 1: promtool found something, or is missing.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../ops/prometheus', import.meta.url));
const files = (suffix) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(suffix))
    .map((name) => join(folder, name));

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

promtool('check', 'rules', '--lint=all', '--lint-fatal', ...files('.rules.yml'));
promtool('test', 'rules', ...files('.rules.test.yml'));
