/**
 * SQL: since when operation `o` could have gone to its queue. That is when it was accepted or, after a redrive, when its
 * letter was closed. Its due time does not tell, because each attempt to put it moves that.
 */
export const UNDISPATCHED_SINCE = `CASE WHEN o.redriven_from IS NULL THEN o.created_at ELSE
    COALESCE((SELECT l.resolved_at FROM {schema}.dead_letters l WHERE l.id = o.redriven_from), o.created_at) END`;
