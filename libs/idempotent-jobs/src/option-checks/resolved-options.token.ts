/** Injection token of the application's options, with all defaults filled in. */
export const RESOLVED_OPTIONS = Symbol('nestjs-idempotent-jobs:options');
