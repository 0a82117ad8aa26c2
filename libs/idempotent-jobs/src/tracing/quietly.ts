/** What tracing does for a job, and may fail at: whoever watches must not stop what is watched. Undefined: it threw. */
export function quietly<T>(trace: () => T): T | undefined {
  try {
    return trace();
  } catch {
    return undefined;
  }
}
