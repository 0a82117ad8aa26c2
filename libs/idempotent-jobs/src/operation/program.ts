/**
 * How messages tell people to start the command line. It names the package, because `npx` alone would run any package that
 * was published under the command's name where ours is not installed.
 */
export const PROGRAM = 'npx -p nestjs-idempotent-jobs idempotent-jobs';
