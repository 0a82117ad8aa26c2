/** Enough rows to make the round trip negligible, few enough to bound the memory of one statement. */
const MAX_ROWS = 1000;

/** Payload characters after which a chunk ends: a statement's text is held several times on its way to Postgres. */
const MAX_CHARACTERS = 4 * 1024 * 1024;

/**
 * Groups requests into chunks, each for one statement. Takes no more of them than it hands out, so that what is made on
 * the way (checked, written as JSON) is held one chunk at a time. A payload larger than a chunk gets one to itself.
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
