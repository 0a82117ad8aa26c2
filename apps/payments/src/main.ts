/**
 * One process of the shop: `ROLE=api`, `ROLE=worker` or both; see settings.ts for the environment. A program that
 * starts it with an IPC channel hears `{ ready: true, url }` when it is up, and takes it along when it ends.
 */
import { boot } from './boot.js';
import { endWithParent } from './end-with-parent.js';
import { settingsFrom } from './settings.js';

endWithParent();
const settings = settingsFrom(process.env);
const { app, url } = await boot(settings, portFrom(process.env['PORT']));
app.enableShutdownHooks();
process.send?.({ ready: true, url });

function portFrom(port: string | undefined): number | undefined {
  if (port) return Number(port);
  return settings.role === 'worker' ? undefined : 3000;
}
