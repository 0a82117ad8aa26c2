/**
 * Since when operation `o`, as SQL, could have gone to its queue: since it was accepted, or brought back, which is when the
 * letter was closed that it came back by. Its due time says less: each attempt to put it moves that.
 */
export const UNDISPATCHED_SINCE = `CASE WHEN o.redriven_from IS NULL THEN o.created_at ELSE
    COALESCE((SELECT l.resolved_at FROM {schema}.dead_letters l WHERE l.id = o.redriven_from), o.created_at) END`;
