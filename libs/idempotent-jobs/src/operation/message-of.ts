/** What something that was thrown says, whatever it is. Never throws. */
export function messageOf(error: unknown): string {
  try {
    const { message } = error as { message?: unknown };
    return typeof message === 'string' ? message : String(error);
  } catch {
    return `a thrown ${error === null ? 'null' : typeof error}`;
  }
}
