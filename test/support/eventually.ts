import { setTimeout as pause } from 'node:timers/promises';

/**
 * Asks until the answer passes the check, and returns it. Throws with the last error, and so with the last value seen,
 * when the time is over.
 */
export async function eventually<T>(
  ask: () => Promise<T> | T,
  check: (answer: T) => void,
  withinMs = 100_000,
): Promise<T> {
  const giveUpAt = performance.now() + withinMs;
  for (;;) {
    const answer = await ask();
    try {
      check(answer);
      return answer;
    } catch (error) {
      if (performance.now() >= giveUpAt) throw error;
    }
    await pause(25);
  }
}
