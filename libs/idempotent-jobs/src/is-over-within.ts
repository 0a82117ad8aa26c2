/** Whether the work ends within `ms`. It is not stopped when it does not. */
export async function isOverWithin(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  const isOver = await Promise.race([work.then(() => true), timeout]);
  clearTimeout(timer);
  return isOver;
}
