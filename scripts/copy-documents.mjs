// Puts the documents that the package is published with beside its package.json. Run by `npm pack`.
import { copyFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

for (const name of ['README.md', 'CHANGELOG.md', 'LICENSE']) {
  const [from, to] = [`../${name}`, `../libs/idempotent-jobs/${name}`].map((path) =>
    fileURLToPath(new URL(path, import.meta.url)),
  );
  copyFileSync(from, to);
}
