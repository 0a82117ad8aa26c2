/**
 * How messages tell people to start the command line. Named with its package: where the package is not installed, `npx`
 * alone would run whatever somebody has published under the name of the command.
 */
export const PROGRAM = 'npx -p nestjs-idempotent-jobs idempotent-jobs';
