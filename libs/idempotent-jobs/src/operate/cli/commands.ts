import type { Command } from './command.js';
import { discard } from './discard.command.js';
import { doctor } from './doctor.command.js';
import { history } from './history.command.js';
import { letters } from './letters.command.js';
import { migrate } from './migrate.command.js';
import { prune } from './prune.command.js';
import { redispatch } from './redispatch.command.js';
import { redrive } from './redrive.command.js';
import { redrives } from './redrives.command.js';
import { resolve } from './resolve.command.js';
import { status } from './status.command.js';

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
