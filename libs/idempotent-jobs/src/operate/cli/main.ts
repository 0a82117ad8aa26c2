import 'reflect-metadata';
import { runCli } from './run-cli.js';

// `… | head` closes the pipe early; the output that is left is dropped, and that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const exitCode = await runCli(process.argv.slice(2), process.env, {
  out: (text) => process.stdout.write(`${text}\n`),
  err: (text) => process.stderr.write(`${text}\n`),
});

// Exits once all output is written: the open connection of a server that does not answer must not keep the process alive.
process.stdout.write('', () => process.exit(exitCode));
