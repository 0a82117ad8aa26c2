import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, lstatSync, mkdirSync, readdirSync, readlinkSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

/** Copies the working tree `from` with what is built of it; packages become links to its own: none of them may be changed. */
export function copyTree(from, to) {
  const listed = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
    cwd: from,
  });
  for (const file of String(listed.stdout).split('\0')) {
    if (file === '' || !existsSync(join(from, file))) continue;
    cpSync(join(from, file), join(to, file));
  }
  const folders = ['libs', 'apps'].flatMap((folder) =>
    readdirSync(join(from, folder)).map((name) => `${folder}/${name}`),
  );
  for (const workspace of [...folders, 'test']) {
    if (existsSync(join(from, workspace, 'dist')))
      cpSync(join(from, workspace, 'dist'), join(to, workspace, 'dist'), { recursive: true });
  }
  linkPackages(join(from, 'node_modules'), join(to, 'node_modules'));
}

/** The library and its neighbours are links already, into the tree that they stand in: in the copy, into the copy. */
function linkPackages(from, to) {
  mkdirSync(to);
  for (const name of readdirSync(from)) {
    const path = join(from, name);
    const isOurs = lstatSync(path).isSymbolicLink();
    symlinkSync(isOurs ? readlinkSync(path) : path, join(to, name));
  }
}
