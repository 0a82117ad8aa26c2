/** The words that metrics use for why an attempt failed; whatever is not among them is `other`. */
export const REASON_LABELS = [
  'timeout',
  'unclassified',
  'ECONNREFUSED',
  'ECONNRESET',
  'ETIMEDOUT',
  'http_429',
  'http_500',
  'http_502',
  'http_503',
  'http_504',
  'other',
] as const;

/** One of {@link REASON_LABELS}. */
export type ReasonLabel = (typeof REASON_LABELS)[number];

const KNOWN: ReadonlySet<string> = new Set(REASON_LABELS);

/** A failure's reason as one of a few words: reasons may be made up by applications, and labels must not. */
export function reasonLabelOf(reason: string): ReasonLabel {
  return KNOWN.has(reason) ? (reason as ReasonLabel) : 'other';
}
