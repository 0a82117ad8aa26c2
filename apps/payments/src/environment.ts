/** A variable of the environment. One that is set to nothing, as in `REDIS_URL=`, counts as not set. */
export function variable(name: string, env: NodeJS.ProcessEnv = process.env): string | undefined {
  return env[name] || undefined;
}

/** A variable that holds a number. */
export function numberOf(name: string, fallback: number, env: NodeJS.ProcessEnv = process.env): number {
  return Number(variable(name, env) ?? fallback);
}
