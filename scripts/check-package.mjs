// Packs the library as it would be published, installs it into a fresh application outside of the workspace, compiles
// that with strict types (library declarations included), runs a job with it, and its command line. First without the
// optional peers, which nobody should need who does not use them; then with them, and what needs them.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';
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

/** As docs and alerts write it, but with nothing fetched from anywhere. */
const COMMAND = ['--no-install', '-p', 'nestjs-idempotent-jobs', 'idempotent-jobs'];

/** By the name that docs write, by the short one, and by the package's. */
function checkCommand(cwd) {
  for (const command of [
    COMMAND,
    ['--no-install', 'idempotent-jobs'],
    ['--no-install', 'nestjs-idempotent-jobs'],
  ]) {
    const help = run('npx', [...command, '--help'], { cwd });
    if (!help.startsWith('Usage: idempotent-jobs'))
      throw new Error(`npx ${command.join(' ')} --help said, in ${cwd}: ${help}`);
  }
}

/** Those whose optional peers are installed load; `needsPeers` names the others. */
function checkSubpaths(exported, needsPeers) {
  const subpaths = Object.keys(exported).filter(
    (path) => path !== './package.json' && !needsPeers.includes(path),
  );
  const names = subpaths.map((path) => `nestjs-idempotent-jobs${path.slice(1)}`);
  const program = `for (const name of ${JSON.stringify(names)}) await import(name);`;
  run('node', ['--import', 'reflect-metadata', '--input-type=module', '--eval', program]);
}

/** A debugger complains of each file that names a map which is not there. */
function checkSourceMaps(paths) {
  const installed = join(folder, 'node_modules/nestjs-idempotent-jobs');
  const dangling = paths
    .filter((path) => /\.(?:js|mjs|d\.ts)$/.test(path))
    .filter((path) => {
      const [, map] =
        /^\/\/# sourceMappingURL=(.+)$/m.exec(readFileSync(join(installed, path), 'utf8')) ?? [];
      return map !== undefined && !paths.includes(posix.join(posix.dirname(path), map));
    });
  if (dangling.length > 0)
    throw new Error(`Files name source maps that are not in the package: ${dangling.join(', ')}`);
}

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
        !/^(?:(?:dist|cjs)\/.*\.(?:js|d\.ts)|cjs\/package\.json|bin\/nestjs-idempotent-jobs\.mjs|package\.json|README\.md|CHANGELOG\.md|LICENSE)$/.test(
          path,
        ) || /\.spec\./.test(path),
    );
  if (strangers.length > 0)
    throw new Error(`The package holds files that do not belong there: ${strangers.join(', ')}`);

  for (const name of ['README.md', 'CHANGELOG.md', 'LICENSE'])
    if (!packed.files.some(({ path }) => path === name)) throw new Error(`The package has no ${name}.`);

  const described = JSON.parse(readFileSync(join(root, 'libs/idempotent-jobs/package.json'), 'utf8'));
  for (const field of ['repository', 'homepage', 'bugs'])
    if (!described[field]) throw new Error(`The package does not say its ${field}.`);

  // What package.json promises is there, and types resolve as the code does, for each kind of importer.
  const tarball = join(folder, packed.filename);
  run('npx', ['--no-install', 'publint', '--strict', tarball], { cwd: root });
  run('npx', ['--no-install', 'attw', '--quiet', tarball], { cwd: root });

  cpSync(join(root, 'test/consumer/nest-12'), folder, {
    recursive: true,
    filter: (path) => !path.endsWith('observed.ts'),
  });
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { peerDependencies, peerDependenciesMeta } = described;
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
  checkSubpaths(described.exports, ['./prometheus', './otel']);
  checkCommand(folder);
  // And in a clone, where it is linked before anything is built.
  checkCommand(root);
  checkSourceMaps(packed.files.map((file) => file.path));

  const postgres = await startPostgres();
  try {
    const said = run('node', ['dist/main.js'], {
      env: { ...process.env, DATABASE_URL: postgres.url },
      timeout: 60_000,
    }).trim();
    if (said !== 'acme paid 500 for order-1 at attempt 1')
      throw new Error(`The consumer's job said: ${said}`);
    const report = run('npx', [...COMMAND, 'doctor', '--json'], {
      env: { ...process.env, DATABASE_URL: postgres.url },
    });
    if (!JSON.parse(report).healthy) throw new Error(`The command's doctor said: ${report}`);

    cpSync(join(root, 'test/consumer/nest-12/src/observed.ts'), join(folder, 'src/observed.ts'));
    install(peers.filter(isOptional));
    checkSubpaths(described.exports, []);
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
