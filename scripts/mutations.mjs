// Takes what the promises hang on out of the library, one part at a time (a fencing token, a tenant, the end of a lease,
// …), and runs the tests that are there to notice. Says for each part which test turned red; fails if none did, or if the
// part is no longer where it was: then find it again, or a test that can fail. Works on a copy. Not for CI: it takes a while.
//
//   npm run test:mutations                      all of them
//   npm run test:mutations -- complete doubt    those with one of these words in their names
//   npm run test:mutations -- --look            only whether each part is where it was, which CI asks
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { copyTree } from './copy-tree.mjs';
import { MUTATIONS } from './mutations/table.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const LIBRARY = 'libs/idempotent-jobs';

/** Puts each `replace` in the place of its `find`, in the source and in what is built of it. Returns how to put it back. */
function mutate(tree, { name, file, edits }) {
  const source = join(tree, LIBRARY, 'src', file);
  const built = join(tree, LIBRARY, 'dist', file.replace(/\.ts$/, '.js'));
  const [before, builtBefore] = [source, built].map((path) => readFileSync(path, 'utf8'));
  const after = edits.reduce((text, { find, replace }) => {
    const places = text.split(find).length - 1;
    if (places !== 1)
      throw new Error(
        `"${name}": what is to be taken out stands in ${file} ${places} times, not once:\n${find}`,
      );
    return text.replace(find, () => replace);
  }, before);
  writeFileSync(source, after);
  writeFileSync(built, ts.transpileModule(after, { compilerOptions: COMPILER_OPTIONS }).outputText);
  return () => {
    writeFileSync(source, before);
    writeFileSync(built, builtBefore);
  };
}

const COMPILER_OPTIONS = {
  ...JSON.parse(readFileSync(join(root, 'tsconfig.base.json'), 'utf8')).compilerOptions,
  target: ts.ScriptTarget.ES2023,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  lib: undefined,
  types: undefined,
  sourceMap: false,
};

/** Runs the cases whose full names match. Returns the names of those that are green, and of those that are red with what they say. */
function run(tree, cases, options = []) {
  const report = join(tree, 'report.json');
  rmSync(report, { force: true });
  const specs = [...new Set(cases.map(({ spec }) => spec))];
  const titles = cases.map(({ title }) => title).join('|');
  const vitest = join(tree, 'node_modules/vitest/vitest.mjs');
  const args = [
    'run',
    '--project',
    'e2e',
    ...specs,
    '-t',
    titles,
    '--reporter=json',
    `--outputFile=${report}`,
  ];
  spawnSync(process.execPath, [vitest, ...args, '--testTimeout=120000', ...options], {
    cwd: tree,
    stdio: 'ignore',
  });
  if (!existsSync(report)) throw new Error(`The tests did not run: ${specs.join(', ')}`);
  const tests = JSON.parse(readFileSync(report, 'utf8')).testResults.flatMap((file) => file.assertionResults);
  const red = tests.filter(({ status }) => status === 'failed');
  return {
    green: tests.filter(({ status }) => status === 'passed').map(({ fullName }) => fullName),
    // What it says shows whether it is red for the right reason.
    red: red.map(
      ({ fullName, failureMessages: [said = ''] }) => `${fullName}\n             (${said.split('\n')[0]})`,
    ),
  };
}

function chosen(words) {
  const mutations = MUTATIONS.filter(
    ({ name }) => words.length === 0 || words.some((word) => name.includes(word)),
  );
  if (mutations.length === 0)
    throw new Error(`No part is called so. There are:\n${MUTATIONS.map(({ name }) => name).join('\n')}`);
  return mutations;
}

const tree = mkdtempSync(join(tmpdir(), 'mutations-'));
process.once('exit', () => rmSync(tree, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
try {
  const words = process.argv.slice(2);
  const mutations = chosen(words.filter((word) => word !== '--look'));
  copyTree(root, tree);
  // All are looked for before anything takes long.
  for (const mutation of mutations) mutate(tree, mutation)();
  if (words.includes('--look')) {
    console.log(`Each of the ${mutations.length} parts is where it was.`);
    process.exit();
  }
  const whole = run(
    tree,
    mutations.flatMap(({ cases }) => cases),
  );
  if (whole.red.length > 0 || whole.green.length === 0)
    throw new Error(`With everything in its place these are red, or nothing ran:\n${whole.red.join('\n')}`);
  console.log(`With everything in its place ${whole.green.length} tests are green.\n`);
  const unnoticed = [];
  for (const mutation of mutations) {
    const restore = mutate(tree, mutation);
    const { red } = run(tree, mutation.cases, ['--bail=1']);
    restore();
    console.log(`${red.length > 0 ? 'noticed  ' : 'UNNOTICED'}  ${mutation.name}`);
    for (const title of red) console.log(`             ${title}`);
    if (red.length === 0) unnoticed.push(mutation.name);
  }
  if (unnoticed.length > 0) throw new Error(`No test misses: ${unnoticed.join(', ')}`);
  console.log(`\nEach of the ${mutations.length} parts is missed by a test.`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
