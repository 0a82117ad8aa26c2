/** Reads a variable of the environment. One that is empty, as in `REDIS_URL=`, counts as not set. */
export function variable(name: string, env: NodeJS.ProcessEnv = process.env): string | undefined {
  return env[name] || undefined;
}

/** Reads a variable as a number. */
export function numberOf(name: string, fallback: number, env: NodeJS.ProcessEnv = process.env): number {
  return Number(variable(name, env) ?? fallback);
}
