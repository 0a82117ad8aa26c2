/**
 * Ends this process when the program that started it over an IPC channel ends, even by a crash. Does nothing for a
 * process that was started otherwise.
 */
export function endWithParent(): void {
  if (process.send === undefined) return;
  // The parent may have ended while the modules were being loaded.
  if (!process.connected) process.exit(1);
  process.once('disconnect', () => process.exit(1));
}
