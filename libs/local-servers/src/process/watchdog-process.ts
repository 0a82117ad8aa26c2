/** The watchdog itself, see watchdog.ts. It reads lines from its owner, and acts when they end without `dismiss`. */
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** Postgres gives its own children five seconds after SIGQUIT before it kills them. */
const GRACE_MS = 6_000;
const POLL_MS = 20;

const directories = process.argv.slice(2);
let guarded: number | undefined;

for await (const line of createInterface({ input: process.stdin })) {
  const [order, pid] = line.split(' ');
  if (order === 'guard') guarded = Number(pid);
  if (order === 'release') guarded = undefined;
  if (order === 'dismiss') process.exit(0);
}

if (guarded !== undefined) await end(guarded);
for (const directory of directories) await rm(directory, { recursive: true, force: true, maxRetries: 5 });

/** SIGQUIT is Postgres' immediate shutdown: the postmaster ends its children too, which SIGKILL would orphan. */
async function end(pid: number): Promise<void> {
  for (let waited = 0; waited < GRACE_MS; waited += POLL_MS) {
    // Only the first signal ends it; the later ones only check whether the process still exists.
    if (!signal(pid, waited === 0 ? 'SIGQUIT' : 0) || isZombie(pid)) return;
    await sleep(POLL_MS);
  }
  signal(pid, 'SIGKILL');
}

function signal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/**
 * Whether the process is dead but never reaped by its new parent, as in containers whose first process is no real init.
 */
function isZombie(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}
