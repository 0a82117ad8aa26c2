import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Asks until there is an answer.
 *
 * @param deadline as `Date.now()` counts
 * @throws Error naming what was waited for when the time is over
 */
export async function until<T>(
  what: string,
  deadline: number,
  everyMs: number,
  ask: () => Promise<T | undefined | false>,
): Promise<T> {
  for (const startedAt = Date.now(); ;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    const now = Date.now();
    if (now > deadline)
      throw new Error(`Waited ${Math.round((now - startedAt) / 1000)} s in vain until ${what}`);
    await sleep(everyMs);
  }
}
