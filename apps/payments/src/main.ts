/**
 * One process of the shop: `ROLE=api`, `ROLE=worker` or both; see settings.ts for the environment. A program that starts
 * it with an IPC channel gets `{ ready: true, url }` when it is up; when that program ends, this process ends too.
 */
import { boot } from './boot.js';
import { endWithParent } from './end-with-parent.js';
import { numberOf, variable } from './environment.js';
import { type Role, settingsFrom } from './settings.js';

endWithParent();
const settings = settingsFrom(process.env);
const { app, url } = await boot(settings, portOf(settings.role));
app.enableShutdownHooks();
process.send?.({ ready: true, url });

function portOf(role: Role): number | undefined {
  return role === 'worker' && variable('PORT') === undefined ? undefined : numberOf('PORT', 3000);
}
