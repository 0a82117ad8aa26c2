/** Enough rows to make the round trip negligible, few enough to bound the memory of one statement. A tenth is `MAX_BUNDLE`. */
const MAX_ROWS = 1000;

/** Payload characters after which a chunk ends: several copies of a statement's text exist on its way to Postgres. */
const MAX_CHARACTERS = 4 * 1024 * 1024;

/**
 * Groups requests into chunks, each for one statement. It consumes no more requests than it yields, so that only one chunk
 * of checked and serialized requests is in memory. A payload larger than a chunk gets a chunk to itself.
 */
export function* chunksOf<Request extends { readonly payload: string }>(
  requests: Iterable<Request>,
): Generator<Request[]> {
  let chunk: Request[] = [];
  let characters = 0;
  for (const request of requests) {
    const isFull = chunk.length === MAX_ROWS || characters + request.payload.length > MAX_CHARACTERS;
    if (isFull && chunk.length > 0) {
      yield chunk;
      chunk = [];
      characters = 0;
    }
    chunk.push(request);
    characters += request.payload.length;
  }
  if (chunk.length > 0) yield chunk;
}
