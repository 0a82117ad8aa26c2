/** The command was called wrongly; nothing was done. Exit code 2. */
export class WrongUsage extends Error {
  /** @param help what is said after the message, in lines of our own */
  constructor(
    message: string,
    readonly help: readonly string[] = [],
  ) {
    super(message);
  }
}

/** What was asked for cannot be done, through no fault of the call. Exit code 1. */
export class Unavailable extends Error {}
