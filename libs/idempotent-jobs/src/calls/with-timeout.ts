/**
 * Calls `fn` with a signal that is aborted after `timeoutMs`, or with `outer`. A function that ignores the signal is no
 * longer waited for, either.
 */
export function withTimeout<T>(
  fn: (signal: AbortSignal) => T | Promise<T>,
  timeoutMs: number,
  outer: AbortSignal | undefined,
  onTimeout: () => Error,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    const stop = (reason: unknown): void => {
      controller.abort(reason);
      end(() => reject(reason));
    };
    const timer = setTimeout(() => stop(onTimeout()), timeoutMs);
    const follow = (): void => stop(outer?.reason);
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      outer?.removeEventListener('abort', follow);
      settle();
    };
    outer?.addEventListener('abort', follow, { once: true });
    if (outer?.aborted === true) return follow();
    void Promise.resolve()
      .then(() => fn(controller.signal))
      .then(
        (value) => end(() => resolve(value)),
        (error: unknown) => end(() => reject(error)),
      );
  });
}
