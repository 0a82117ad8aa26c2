/**
 * The result of the work if it ends within `ms`; else rejects with the error of `tooLate`. Work that takes longer is not
 * stopped.
 */
export async function within<T>(ms: number, work: Promise<T>, tooLate: () => Error): Promise<T> {
  if (await isOverWithin(ms, work)) return work;
  throw tooLate();
}

/** Whether the work ends within `ms`; rejects if the work does. Work that takes longer is not stopped. */
export async function isOverWithin(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([work.then(() => true), timeout]);
  } finally {
    clearTimeout(timer);
  }
}
