/** A variable of the environment. One that is set to nothing counts as not set. */
export function variable(name: string): string | undefined {
  return process.env[name] || undefined;
}
