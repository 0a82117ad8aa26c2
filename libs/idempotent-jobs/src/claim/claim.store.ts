import { identityKeyOf } from '../operation/identity.js';
import { Coalescer } from '../postgres/coalescer.js';
import type { Database, Queryable } from '../postgres/database.js';
import { type ClaimAnswer, type ClaimRequest, type ClaimRow, type ClaimTerms, readAnswer } from './claim.js';
import { CLAIM } from './claim.statement.js';

/**
 * Wins the right to run operations. All claims of a processor that arrive together share a statement.
 *
 * A crash before the statement commits leaves nothing; after it, a lease that runs out by itself.
 */
export class ClaimStore {
  readonly #coalescers = new Map<ClaimTerms, Coalescer<ClaimRequest, ClaimRow>>();

  constructor(private readonly database: Database) {}

  /** Claims on the pool, together with whatever else is being claimed under the same terms. */
  async claim(request: ClaimRequest): Promise<ClaimAnswer> {
    const coalescer = this.#coalescerFor(request.terms);
    const answer = readAnswer(request, await coalescer.submit(request));
    return answer.kind === 'look_again' ? this.#lookAgain(request, () => coalescer.submit(request)) : answer;
  }

  /** Claims inside a transaction: the claim is taken back if the transaction is. */
  async claimWithin(connection: Queryable, request: ClaimRequest): Promise<ClaimAnswer> {
    return this.#lookAgain(
      request,
      async () => (await this.#ask(request.terms, [request], connection))[0] as ClaimRow,
    );
  }

  async #lookAgain(request: ClaimRequest, ask: () => Promise<ClaimRow>): Promise<ClaimAnswer> {
    for (let look = 1; look <= MAX_LOOKS; look += 1) {
      const answer = readAnswer(request, await ask());
      if (answer.kind !== 'look_again') return answer;
    }
    // Rivals keep rewriting the row between our looks. Somebody is running it; come back shortly.
    return { kind: 'busy', leaseLeftMs: 0 };
  }

  #coalescerFor(terms: ClaimTerms): Coalescer<ClaimRequest, ClaimRow> {
    let coalescer = this.#coalescers.get(terms);
    if (coalescer === undefined) {
      coalescer = new Coalescer<ClaimRequest, ClaimRow>(
        (requests) => this.#ask(terms, requests),
        identityKeyOf,
      );
      this.#coalescers.set(terms, coalescer);
    }
    return coalescer;
  }

  #ask(terms: ClaimTerms, requests: ClaimRequest[], connection?: Queryable): Promise<ClaimRow[]> {
    return this.database.run<ClaimRow>(
      CLAIM,
      [
        terms.queue,
        terms.effect,
        terms.leaseMs,
        terms.repeatableMs,
        terms.budgetMs,
        requests.map((request) => request.tenantId),
        requests.map((request) => request.operationKey),
        requests.map((request) => request.jobName),
        requests.map((request) => request.jobId),
        requests.map((request) => request.fingerprint),
        requests.map((request) => request.workerId),
        requests.map((request) => request.deadline),
      ],
      connection,
    );
  }
}

/** A second look sees the rival's row; more are needed only when rivals follow each other within microseconds. */
const MAX_LOOKS = 5;
