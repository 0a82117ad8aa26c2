// Compiles every ```ts block of the documents, so that what is printed there can be pasted, and follows every
// link from one document to another.
//
//   ```ts                    a module of its own
//   ```ts continue           the next lines of the previous block's module
//   ```ts file=src/a.ts      a module that other blocks of the same document import as './a.js'
//
// The blocks are written to a folder inside the repository, where imports resolve to the workspace's own packages as
// built, and are compiled as one program. Exit code 1: errors, each with file and line of the document.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, '.docs-check');

/** As an application of NestJS 12 would compile them. */
const COMPILER_OPTIONS = {
  target: ts.ScriptTarget.ES2023,
  lib: ['lib.es2023.d.ts'],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  moduleDetection: ts.ModuleDetectionKind.Force,
  types: ['node'],
  strict: true,
  isolatedModules: true,
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  skipLibCheck: true,
  noEmit: true,
};

/** The documents, as paths from the root. */
function documents() {
  const inDocs = existsSync(join(root, 'docs')) ? readdirSync(join(root, 'docs'), { recursive: true }) : [];
  const paths = inDocs.map((path) => posix.join('docs', path.replaceAll('\\', '/')));
  return [
    'README.md',
    'CHANGELOG.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'apps/payments/README.md',
    ...paths.filter((path) => path.endsWith('.md')).sort(),
  ];
}

/** The text of a document without its blocks of code. */
function proseOf(document) {
  return readFileSync(join(root, document), 'utf8').replace(/^\s*(`{3,})[\s\S]*?^\s*\1\s*$/gm, '');
}

/** What GitHub makes of the headings of a document. */
function anchorsOf(document) {
  const headings = [...proseOf(document).matchAll(/^#+ (.+)$/gm)].map(([, heading]) => heading);
  return headings.map((heading) =>
    heading
      .toLowerCase()
      .replace(/\[(.*?)\]\(.*?\)/g, '$1')
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replace(/\s/g, '-'),
  );
}

/** The links of a document that lead to no file, or to no heading of it. */
function brokenLinks(document) {
  const links = [...proseOf(document).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link);
  return links
    .filter((link) => !/^[a-z]+:/.test(link))
    .filter((link) => {
      const [path, anchor] = link.split('#');
      const target = path === '' ? document : posix.join(posix.dirname(document), path);
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && target.endsWith('.md') && !anchorsOf(target).includes(anchor);
    })
    .map((link) => `${document} has a link that leads nowhere: ${link}`);
}

/** The `ts` blocks of a document: `line` is the number of the first line of code. */
function blocksOf(document) {
  const blocks = [];
  let open;
  readFileSync(join(root, document), 'utf8')
    .split(/\r?\n/)
    .forEach((text, index) => {
      const fence = /^\s*(`{3,})\s*(.*)$/.exec(text);
      if (open === undefined && fence) {
        const [language, ...words] = fence[2].trim().split(/\s+/);
        open = { fence: fence[1], isTs: language === 'ts', words, line: index + 2, lines: [] };
      } else if (open !== undefined && fence?.[2] === '' && fence[1].length >= open.fence.length) {
        if (open.isTs) blocks.push({ document, words: open.words, line: open.line, lines: open.lines });
        open = undefined;
      } else {
        open?.lines.push(text);
      }
    });
  if (open !== undefined) throw new Error(`${document}:${open.line - 1} opens a block that nobody closes`);
  return blocks;
}

/** The modules to write: their lines, and where in the documents each line comes from. */
function modulesOf(document) {
  const modules = new Map();
  let current;
  for (const { words, line, lines } of blocksOf(document)) {
    const file = words.find((word) => word.startsWith('file='))?.slice('file='.length);
    if (words.includes('continue')) {
      if (current === undefined)
        throw new Error(`${document}:${line - 1} continues, but nothing goes before`);
    } else {
      const name = join(folder, document.replace(/\.md$/, ''), file ?? `line-${line}.ts`);
      if (modules.has(name)) throw new Error(`${document}:${line - 1} is a second ${file}`);
      current = { lines: [], origins: [] };
      modules.set(name, current);
    }
    lines.forEach((text, index) => {
      current.lines.push(text);
      current.origins.push(`${document}:${line + index}`);
    });
  }
  return modules;
}

function describe(diagnostic, modules) {
  const message = `TS${diagnostic.code}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n  ')}`;
  if (diagnostic.file === undefined || diagnostic.start === undefined) return message;
  const { line } = diagnostic.file.getLineAndCharacterOfPosition(diagnostic.start);
  const name = diagnostic.file.fileName;
  return `${modules.get(join(name))?.origins[line] ?? `${name}:${line + 1}`} ${message}`;
}

if (!existsSync(join(root, 'libs/idempotent-jobs/dist/index.d.ts'))) {
  console.error('The library is not built: run npm run build first.');
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => process.exit(1));
}
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

const paths = documents();
const modules = new Map(paths.flatMap((document) => [...modulesOf(document)]));
rmSync(folder, { recursive: true, force: true });
for (const [name, { lines }] of modules) {
  mkdirSync(dirname(name), { recursive: true });
  writeFileSync(name, `${lines.join('\n')}\n`);
}
const program = ts.createProgram([...modules.keys()], COMPILER_OPTIONS);
const errors = [
  ...ts.getPreEmitDiagnostics(program).map((diagnostic) => describe(diagnostic, modules)),
  ...paths.flatMap((document) => brokenLinks(document)),
];
for (const error of errors) console.error(error);
const blocks = paths.reduce((sum, document) => sum + blocksOf(document).length, 0);
console.log(
  `${blocks} blocks in ${modules.size} modules of ${paths.length} documents: ${errors.length} errors`,
);
process.exitCode = errors.length === 0 ? 0 : 1;
