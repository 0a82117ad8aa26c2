/**
 * Ends this process with the program that started it over an IPC channel, however that ended. Does nothing for a process
 * that was started otherwise.
 */
export function endWithParent(): void {
  if (process.send === undefined) return;
  // The parent may have gone while our modules were being loaded.
  if (!process.connected) process.exit(1);
  process.once('disconnect', () => process.exit(1));
}
