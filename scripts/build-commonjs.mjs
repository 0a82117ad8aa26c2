// Makes the CommonJS form of the built library, in `cjs/`, for those who cannot load ES modules by `require()`: Jest, and
// TypeScript before 5.8. Node itself loads the ES modules also then (docs/adr/0045-es-modules-and-a-commonjs-form.md), so that there is one of each class.
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { rolldown } from 'rolldown';

const library = fileURLToPath(new URL('../libs/idempotent-jobs/', import.meta.url));
const [dist, cjs] = ['dist', 'cjs'].map((name) => join(library, name));
const { exports: exported } = JSON.parse(readFileSync(join(library, 'package.json'), 'utf8'));
const entries = Object.values(exported).flatMap(({ default: path }) =>
  path?.endsWith('.js') ? [join(library, path)] : [],
);

rmSync(cjs, { recursive: true, force: true });
const bundle = await rolldown({ input: entries, platform: 'node', external: /^[^./]/ });
await bundle.write({
  dir: cjs,
  format: 'cjs',
  exports: 'named',
  preserveModules: true,
  preserveModulesRoot: dist,
});
cpSync(dist, cjs, { recursive: true, filter: (path) => !/\.(?:js|map|tsbuildinfo)$/.test(path) });
writeFileSync(join(cjs, 'package.json'), '{ "type": "commonjs" }\n');
