/** What has to be undone when the demo ends, however and whenever it ends: the latest first. */
export class UndoList {
  private readonly undos: (() => Promise<unknown>)[] = [];
  private undoing: Promise<void> | undefined;

  /** Whether it is all being undone: nothing new must be started. */
  get isClosed(): boolean {
    return this.undoing !== undefined;
  }

  /** Notes how to end something. @throws Error if everything is being undone: it is ended at once */
  add(undo: () => Promise<unknown>): void {
    if (this.isClosed) {
      undo().catch((error: unknown) => console.error(error));
      throw new Error('The demo is being ended');
    }
    this.undos.push(undo);
  }

  /** Waits for something that is starting. It is noted already: whoever ends the demo now waits for it, and ends it. */
  async keep<T>(starting: Promise<T>, undo: (started: T) => Promise<unknown>): Promise<T> {
    this.add(async () => {
      const [outcome] = await Promise.allSettled([starting]);
      if (outcome.status === 'fulfilled') await undo(outcome.value);
    });
    return starting;
  }

  /** Undoes everything, once; one that fails does not keep the others from it. */
  close(): Promise<void> {
    this.undoing ??= this.undoAll();
    return this.undoing;
  }

  private async undoAll(): Promise<void> {
    for (const undo of this.undos.toReversed()) await undo().catch((error: unknown) => console.error(error));
  }
}
