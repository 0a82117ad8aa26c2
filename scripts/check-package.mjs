// Packs the library as it would be published, installs it into a fresh application outside of the workspace, compiles
// that with strict types (library declarations included), runs a job with it, and its command line. First without the
// optional peers, which nobody should need who does not use them; then with them, and what needs them.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startPostgres } from 'local-servers';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'idempotent-jobs-consumer-'));
const run = (command, args, options = {}) =>
  execFileSync(command, args, {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    ...options,
  });

try {
  const [packed] = JSON.parse(
    run('npm', ['pack', '--json', '--workspace', 'nestjs-idempotent-jobs', '--pack-destination', folder], {
      cwd: root,
    }),
  );
  const strangers = packed.files
    .map((file) => file.path)
    .filter(
      (path) =>
        !/^(?:dist\/.*\.(?:js|d\.ts)|package\.json|README\.md|CHANGELOG\.md|LICENSE)$/.test(path) ||
        /\.spec\./.test(path),
    );
  if (strangers.length > 0)
    throw new Error(`The package holds files that do not belong there: ${strangers.join(', ')}`);

  cpSync(join(root, 'test/consumer'), folder, {
    recursive: true,
    filter: (path) => !path.endsWith('observed.ts'),
  });
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { peerDependencies, peerDependenciesMeta } = JSON.parse(
    readFileSync(join(root, 'libs/idempotent-jobs/package.json'), 'utf8'),
  );
  const peers = Object.keys(peerDependencies);
  const isOptional = (name) => peerDependenciesMeta[name]?.optional === true;
  const install = (names) => {
    const versions = Object.fromEntries(names.map((name) => [name, devDependencies[name]]));
    manifest.dependencies = { ...manifest.dependencies, ...versions };
    writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest, null, 2));
    run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']);
    run('npx', ['tsc', '-p', '.'], { stdio: 'inherit' });
  };
  manifest.dependencies = { 'nestjs-idempotent-jobs': `file:${packed.filename}` };
  install([...peers.filter((name) => !isOptional(name)), 'ioredis', 'typescript', '@types/node']);
  const help = run('npx', ['--no-install', 'idempotent-jobs', '--help']);
  if (!help.startsWith('Usage: idempotent-jobs')) throw new Error(`npx idempotent-jobs --help said: ${help}`);

  const postgres = await startPostgres();
  try {
    const said = run('node', ['dist/main.js'], {
      env: { ...process.env, DATABASE_URL: postgres.url },
      timeout: 60_000,
    }).trim();
    if (said !== 'acme paid 500 for order-1 at attempt 1')
      throw new Error(`The consumer's job said: ${said}`);
    const report = run('npx', ['--no-install', 'idempotent-jobs', 'doctor', '--json'], {
      env: { ...process.env, DATABASE_URL: postgres.url },
    });
    if (!JSON.parse(report).healthy) throw new Error(`npx idempotent-jobs doctor said: ${report}`);

    cpSync(join(root, 'test/consumer/src/observed.ts'), join(folder, 'src/observed.ts'));
    install(peers.filter(isOptional));
    const counted = run('node', ['dist/observed.js'], {
      env: { ...process.env, DATABASE_URL: postgres.url },
      timeout: 60_000,
    }).trim();
    if (counted !== 'fence_rejected_total{queue="charges"} 0\ndispatch_pending 0')
      throw new Error(`The consumer's metrics said: ${counted}`);
  } finally {
    await postgres.stop();
  }
  console.log(
    `The package (${packed.files.length} files, ${Math.round(packed.size / 1024)} kB) works in a fresh application.`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
