// Runs the end-to-end tests with older versions of the packages that the library stands on, in a copy of the working tree.
// Arguments are those of `vitest run`.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { copyTree } from './copy-tree.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
/**
 * The oldest ones that the package allows. With a BullMQ older than that, a worker takes further jobs while it closes
 * (before 5.76.11), and a connection that is closed while it is made rejects more promises that nobody holds (before 5.77.0).
 */
const dependencies = {
  bullmq: '5.77.0',
  typeorm: '0.3.20',
  '@nestjs/bullmq': '11.0.0',
  '@nestjs/common': '11.0.0',
  '@nestjs/core': '11.0.0',
  '@nestjs/platform-express': '11.0.0',
  '@nestjs/terminus': '11.0.0',
  '@nestjs/testing': '11.0.0',
  '@nestjs/typeorm': '11.0.0',
};

/** Packages that are installed in a folder take the place of the links to ours. */
function relink(installed, tree) {
  const names = readdirSync(installed).flatMap((name) =>
    name.startsWith('@') ? readdirSync(join(installed, name)).map((inner) => `${name}/${inner}`) : [name],
  );
  for (const name of names.filter((one) => !one.startsWith('.'))) {
    const path = join(tree, 'node_modules', name);
    rmSync(path, { force: true });
    symlinkSync(join(installed, name), path);
  }
}

/** A scope is one link. Its packages are to be replaced one by one. */
function openScope(tree, scope) {
  const [theirs, ours] = [root, tree].map((folder) => join(folder, 'node_modules', scope));
  rmSync(ours);
  mkdirSync(ours);
  for (const name of readdirSync(theirs)) symlinkSync(join(theirs, name), join(ours, name));
}

const tree = mkdtempSync(join(tmpdir(), 'older-peers-'));
process.once('exit', () => rmSync(tree, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

copyTree(root, tree);
const folder = join(tree, 'older');
mkdirSync(folder);
writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies }));
execFileSync('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'], {
  cwd: folder,
  stdio: ['ignore', 2, 2],
});
const installed = join(folder, 'node_modules');
for (const scope of readdirSync(installed).filter((name) => name.startsWith('@')))
  if (readdirSync(join(root, 'node_modules')).includes(scope)) openScope(tree, scope);
  else mkdirSync(join(tree, 'node_modules', scope));
relink(installed, tree);
console.log(
  `With ${Object.entries(dependencies)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ')}`,
);

const vitest = join(tree, 'node_modules/vitest/vitest.mjs');
const { status } = spawnSync(
  process.execPath,
  [vitest, 'run', '--project', 'e2e', ...process.argv.slice(2)],
  {
    cwd: tree,
    env: { ...process.env, OLDER_PEERS: '1' },
    stdio: 'inherit',
  },
);
process.exitCode = status ?? 1;
