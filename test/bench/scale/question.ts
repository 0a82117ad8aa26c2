import type { Servers } from '../servers.js';

/** One thing to know about a ledger that is larger, or shared by more, than in a test. */
export interface Question {
  /** For `--only`. */
  readonly name: string;
  readonly asks: string;
  /** How many rows, jobs or operations it is asked about: by default, and with `--full`. */
  readonly sizes: { readonly usual: number; readonly full: number };
  answer(servers: Servers, size: number): Promise<readonly Figure[]>;
}

/** One measured figure. */
export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** Of the same on the other side of the comparison, in the same run. Undefined where there is nothing to compare. */
  readonly ratio?: number;
  /** What the ratio is of. */
  readonly of?: string;
}

/** A figure next to the one that it is compared with. */
export function compared(what: string, unit: string, value: number, base: number, of: string): Figure {
  return { what, unit, value: rounded(value), ratio: rounded(value / base), of: `${of}, ${rounded(base)}` };
}

export function alone(what: string, unit: string, value: number): Figure {
  return { what, unit, value: rounded(value) };
}

/** Three digits say all that such a figure can. */
function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
