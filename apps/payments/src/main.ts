/**
 * One process of the shop: `ROLE=api`, `ROLE=worker` or both; see settings.ts for the environment. A program that
 * starts it with an IPC channel hears `{ ready: true, url }` when it is up, and takes it along when it ends.
 */
import { boot } from './boot.js';
import { endWithParent } from './end-with-parent.js';
import { settingsFrom } from './settings.js';

endWithParent();
const { app, url } = await boot(settingsFrom(process.env), Number(process.env['PORT'] || 3000));
app.enableShutdownHooks();
process.send?.({ ready: true, url });
