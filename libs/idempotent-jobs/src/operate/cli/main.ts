import 'reflect-metadata';
import { runCli } from './run-cli.js';

// `… | head` closes the pipe early; what is left unsaid is nobody's error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const exitCode = await runCli(process.argv.slice(2), process.env, {
  out: (text) => process.stdout.write(`${text}\n`),
  err: (text) => process.stderr.write(`${text}\n`),
});

// Once all is said: a server that stays silent keeps its connection open, which must not keep us.
process.stdout.write('', () => process.exit(exitCode));
