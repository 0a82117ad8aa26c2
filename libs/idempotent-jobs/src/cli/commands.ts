import type { Command } from './command.js';
import { discard } from './commands/discard.command.js';
import { doctor } from './commands/doctor.command.js';
import { history } from './commands/history.command.js';
import { letters } from './commands/letters.command.js';
import { migrate } from './commands/migrate.command.js';
import { prune } from './commands/prune.command.js';
import { redispatch } from './commands/redispatch.command.js';
import { redrive } from './commands/redrive.command.js';
import { redrives } from './commands/redrives.command.js';
import { resolve } from './commands/resolve.command.js';
import { status } from './commands/status.command.js';

/** All there are, in the order of the help. */
export const COMMANDS: readonly Command[] = [
  status,
  letters,
  history,
  redrive,
  redrives,
  resolve,
  discard,
  redispatch,
  prune,
  migrate,
  doctor,
];
