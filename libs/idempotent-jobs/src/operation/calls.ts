/**
 * The `queue` of operations that no job asks for: calls guarded by `IdempotencyService`. No BullMQ queue; their dead
 * letters are listed, and not announced.
 */
export const CALLS = '(calls)';
