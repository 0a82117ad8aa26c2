import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** Tried in this order: the usual one, then one that every Unix has. */
const CANDIDATES = ['postgres', 'nobody'];

/**
 * Finds the user that Postgres runs as. Postgres refuses to run as root, so a root process uses another user; any other
 * process (and Windows) uses its own. No user is created: that would change the machine for good.
 *
 * @throws Error when this process is root and the machine has none of the candidates
 */
export async function serverUser(): Promise<ServerUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of CANDIDATES) {
    try {
      const [uid, gid] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])]);
      return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
    } catch {
      // There is no such user; try the next one.
    }
  }
  throw new Error(
    `Postgres does not run as root, and none of the users ${CANDIDATES.join(', ')} exists here: run as another user`,
  );
}
