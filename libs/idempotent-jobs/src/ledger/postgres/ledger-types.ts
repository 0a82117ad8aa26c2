/** How pg is told to read the values of a result. */
export interface TypeParsers {
  getTypeParser(oid: number, format?: string): (text: any) => unknown;
}

const asNumber = (text: string): number => Number(text);
const asJson = (text: string): unknown => JSON.parse(text);
const asText = (text: string): string => text;

/** Parses a time as Postgres writes it with `DateStyle` ISO, e.g. `2026-01-31 06:00:00.123456+00`. */
function asDate(text: string): Date | number {
  if (text === 'infinity') return Infinity;
  if (text === '-infinity') return -Infinity;
  // The fast path for nearly all values: a year of four digits, in a session whose time zone is UTC.
  if (text[4] === '-' && text.endsWith('+00')) return new Date(`${text.slice(0, 10)}T${text.slice(11, -3)}Z`);
  const [, day = '', time = '', zone = ''] = /^(\S+) ([\d:.]+)([+-][\d:]+)$/.exec(text) ?? [];
  const year = /^\d{5,}/.test(day) ? `+${day.padStart(12, '0')}` : day;
  // JavaScript accepts only milliseconds, and zones of hours and minutes.
  return new Date(`${year}T${time.replace(/(\.\d{3})\d+$/, '$1')}${zone.length === 3 ? `${zone}:00` : zone}`);
}

/** By OID: bool, int8 stays text, int2, int4, json, float4, float8, timestamptz, jsonb. */
const PARSERS = new Map<number, (text: string) => unknown>([
  [16, (text) => text === 't'],
  [21, asNumber],
  [23, asNumber],
  [114, asJson],
  [700, asNumber],
  [701, asNumber],
  [1184, asDate],
  [3802, asJson],
]);

/**
 * The types of the ledger's own statements. The application may have told pg to read timestamps as Temporal or integers as
 * BigInt, for all of the process; that must not affect the library.
 */
export const LEDGER_TYPES: TypeParsers = {
  getTypeParser: (oid) => PARSERS.get(oid) ?? asText,
};
