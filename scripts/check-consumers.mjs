// Installs the library, as it would be published, into each application of test/consumer that says in its package.json how
// it is checked, outside of the workspace and with its own versions of everything, and has it check itself against servers
// that are started here. Arguments are names of such applications; without any, all are checked.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startPostgres, startRedis } from 'local-servers';

const root = fileURLToPath(new URL('..', import.meta.url));
const consumers = join(root, 'test/consumer');
const asked = process.argv.slice(2);
const stacks = readdirSync(consumers)
  .map((name) => ({ name, ...JSON.parse(readFileSync(join(consumers, name, 'package.json'), 'utf8')) }))
  .filter(
    ({ name, scripts }) => scripts?.check !== undefined && (asked.length === 0 || asked.includes(name)),
  );

const unknown = asked.filter((name) => !stacks.some((stack) => stack.name === name));
if (unknown.length > 0)
  throw new Error(`test/consumer has no application to check named ${unknown.join(', ')}.`);

const folder = mkdtempSync(join(tmpdir(), 'idempotent-jobs-consumers-'));
const run = (command, args, options) => execFileSync(command, args, { encoding: 'utf8', ...options });
let postgres;
let redis;
try {
  postgres = await startPostgres();
  redis = await startRedis();
  if (redis === undefined) throw new Error('BullMQ 5 needs Redis: put a redis-server on the PATH.');
  const [packed] = JSON.parse(
    run('npm', ['pack', '--json', '--workspace', 'nestjs-idempotent-jobs', '--pack-destination', folder], {
      cwd: root,
    }),
  );
  for (const { name, description } of stacks) {
    const cwd = join(folder, name);
    cpSync(join(consumers, name), cwd, { recursive: true });
    const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
    run('npm', ['install', ...flags, join(folder, packed.filename)], {
      cwd,
      stdio: ['ignore', 2, 2],
      timeout: 600_000,
    });
    const env = { ...process.env, DATABASE_URL: postgres.url, REDIS_URL: redis.url };
    run('npm', ['run', '--silent', 'check'], { cwd, env, stdio: ['ignore', 2, 2], timeout: 300_000 });
    console.log(`The package works in ${name}: ${description}.`);
  }
} finally {
  await redis?.stop();
  await postgres?.stop();
  rmSync(folder, { recursive: true, force: true });
}
