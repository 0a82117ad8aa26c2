/** A label that a selector compares: `queue=~"charges|receipts"`. */
export interface LabelMatcher {
  readonly label: string;
  readonly operator: '=' | '!=' | '=~' | '!~';
  /** As it is written, without its quotes; may hold a variable of Grafana, e.g. `$queue`. */
  readonly value: string;
}

/** A metric that an expression asks for, in one place. */
export interface MetricUse {
  /** As it is written, e.g. `job_wait_seconds_bucket`. */
  readonly series: string;
  /** The metric that the application registers, e.g. `job_wait_seconds`. */
  readonly name: string;
  readonly matchers: readonly LabelMatcher[];
  /** The labels that its result is told apart by: `by (…)` around it, or asked of `label_values()`. */
  readonly groupedBy: readonly string[];
}

interface Token {
  readonly kind: 'word' | 'text' | 'variable' | 'sign';
  readonly text: string;
}

/**
 * Blanks and comments, ranges and subqueries (`[5m]`, `[1h:30s]`), numbers and durations name nothing, and belong to no
 * group. Variables are Grafana's.
 */
const TOKEN = new RegExp(
  [
    String.raw`\s+|#.*|\[[^\]]*\]`,
    String.raw`(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+)(?:(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)?(?![\w:])`,
    String.raw`(?<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')`,
    String.raw`(?<variable>\$\{[^}]*\}|\$\w+)`,
    String.raw`(?<word>[A-Za-z_:][\w:]*)`,
    String.raw`(?<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){},@])`,
  ].join('|'),
  'y',
);

/** Words that name nothing, although no parenthesis follows them. */
const KEYWORDS = /^(?:and|or|unless|offset|bool|atan2|group_left|group_right|inf|nan)$/i;

/** Words whose parenthesis holds labels. Of these, `by` alone says what a result is told apart by. */
const LABEL_LIST = /^(?:by|without|on|ignoring|group_left|group_right)$/i;

/**
 * Every metric that an expression of PromQL, or a `label_values()` of Grafana, asks for, in the order they are written.
 * A metric is a word that is no keyword, is not called, and is not an aggregation whose labels come next. Recorded series
 * (`a:b`) are none. Throws rather than leave out what it cannot read.
 */
export function metricsIn(expression: string): MetricUse[] {
  const labelsAsked = /^\s*label_values\((?:(?<metric>.*),)?\s*(?<label>\w+)\s*\)\s*$/s.exec(
    expression,
  )?.groups;
  if (labelsAsked === undefined) return new Reader(expression).read();
  const { metric, label = '' } = labelsAsked;
  if (metric === undefined) return [];
  return metricsIn(metric).map((use) => ({ ...use, groupedBy: [...use.groupedBy, label] }));
}

/** The metric that a series belongs to: those of a histogram have three endings. A counter keeps its `_total`. */
export function baseNameOf(series: string): string {
  return series.replace(/_(?:bucket|sum|count)$/, '');
}

class Reader {
  readonly #tokens: readonly Token[];
  readonly #uses: { series: string; matchers: readonly LabelMatcher[]; groupedBy: Set<string> }[] = [];
  /** Of each parenthesis that is open: the labels that were listed before it, and how many metrics were found before it. */
  readonly #open: { readonly groupedBy: readonly string[]; readonly usesBefore: number }[] = [];
  /** Labels of a `by (…)` that stands before the parenthesis it is about. */
  #listed: readonly string[] = [];
  /** How many metrics were found before the parenthesis that has just been closed; a `by (…)` may be about it. */
  #closed: number | undefined;
  #at = 0;

  constructor(private readonly expression: string) {
    this.#tokens = this.#tokenize();
  }

  read(): MetricUse[] {
    for (this.#at = 0; this.#at < this.#tokens.length; this.#at++) {
      const closed = this.#closed;
      this.#closed = undefined;
      const { kind, text } = this.#tokens[this.#at]!;
      if (kind === 'word') this.#word(text, closed);
      else if (this.#is(this.#at, '(')) this.#openParenthesis();
      else if (this.#is(this.#at, ')'))
        this.#closed = (this.#open.pop() ?? this.#fail('")" without "("')).usesBefore;
      else if (this.#is(this.#at, '{') || this.#is(this.#at, '}')) this.#fail('a selector without a name');
    }
    if (this.#open.length > 0) this.#fail('"(" without ")"');
    return this.#uses.map(({ series, matchers, groupedBy }) => ({
      series,
      name: baseNameOf(series),
      matchers,
      groupedBy: [...groupedBy],
    }));
  }

  #word(word: string, closed: number | undefined): void {
    const next = this.#tokens[this.#at + 1];
    if (LABEL_LIST.test(word) && this.#is(this.#at + 1, '(')) this.#labelList(word, closed);
    else if (this.#is(this.#at + 1, '(') || KEYWORDS.test(word)) return;
    else if (next?.kind === 'word' && /^(?:by|without)$/i.test(next.text)) return;
    else this.#metric(word);
  }

  #metric(series: string): void {
    const matchers = this.#is(this.#at + 1, '{') ? this.#selector() : [];
    if (series.includes(':')) return;
    this.#uses.push({
      series,
      matchers,
      groupedBy: new Set(this.#open.flatMap(({ groupedBy }) => groupedBy)),
    });
  }

  /** `{a="b", c=~"d"}`, and stays at its end. */
  #selector(): LabelMatcher[] {
    const matchers: LabelMatcher[] = [];
    this.#at += 2;
    while (!this.#is(this.#at, '}')) {
      const [label, operator, value] = this.#tokens.slice(this.#at, this.#at + 3);
      if (label?.kind !== 'word' || value?.kind !== 'text' || !isMatch(operator?.text))
        return this.#fail('a selector that cannot be read');
      matchers.push({
        label: label.text,
        operator: operator!.text as LabelMatcher['operator'],
        value: value.text,
      });
      this.#at += this.#is(this.#at + 3, ',') ? 4 : 3;
    }
    return matchers;
  }

  /** `by (a, b)`, before its parenthesis or behind it, and stays at its end. */
  #labelList(word: string, closed: number | undefined): void {
    const labels: string[] = [];
    for (this.#at += 2; !this.#is(this.#at, ')'); this.#at++) {
      const token = this.#tokens[this.#at];
      if (token?.kind === 'word') labels.push(token.text);
      else if (!this.#is(this.#at, ',')) this.#fail(`${word} (…) that cannot be read`);
    }
    if (word.toLowerCase() !== 'by') return;
    if (closed === undefined) this.#listed = labels;
    else
      for (const { groupedBy } of this.#uses.slice(closed)) labels.forEach((label) => groupedBy.add(label));
  }

  #openParenthesis(): void {
    this.#open.push({ groupedBy: this.#listed, usesBefore: this.#uses.length });
    this.#listed = [];
  }

  #is(at: number, sign: string): boolean {
    return this.#tokens[at]?.kind === 'sign' && this.#tokens[at].text === sign;
  }

  #tokenize(): Token[] {
    const tokens: Token[] = [];
    for (let at = 0; at < this.expression.length; at = TOKEN.lastIndex) {
      TOKEN.lastIndex = at;
      const groups =
        (TOKEN.exec(this.expression) ?? this.#fail(`"${this.expression.slice(at, at + 20)}"`)).groups ?? {};
      for (const kind of ['text', 'variable', 'word', 'sign'] as const) {
        const text = groups[kind];
        if (text !== undefined) tokens.push({ kind, text: kind === 'text' ? text.slice(1, -1) : text });
      }
    }
    return tokens;
  }

  #fail(what: string): never {
    throw new Error(`Cannot read ${what} in: ${this.expression}`);
  }
}

function isMatch(operator: string | undefined): boolean {
  return operator === '=' || operator === '!=' || operator === '=~' || operator === '!~';
}
