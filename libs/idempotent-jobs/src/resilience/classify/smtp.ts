import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { signed } from './failure-sign.js';
import { read } from '../../operation/thrown.js';

/**
 * SMTP replies (RFC 5321, section 4.2.2). 421, 450 and 452 say that the server has not taken the message. Any other
 * 4xx to the message itself (451: "local error in processing") does not say how far it got.
 *
 * @internal
 */
export function bySmtpReply(error: unknown): Failure | undefined {
  const code = read(error, 'responseCode');
  // Others have response codes too; nodemailer says which command it was an answer to.
  if (typeof code !== 'number' || typeof read(error, 'command') !== 'string') return undefined;
  return signed('answer', { kind: kindOf(code, error), code: `smtp_${code}` });
}

function kindOf(code: number, error: unknown): FailureKind {
  // The session was in another state than the client thought; in a new one the same message may go through.
  if (code === 503) return 'transient';
  if (code >= 500) return 'permanent';
  // A yes where something else was to come.
  if (code < 400) return 'in_doubt';
  const isRefusal = code === 421 || code === 450 || code === 452;
  return isRefusal || !mayBeToTheMessage(error) ? 'transient' : 'in_doubt';
}

/** Nodemailer says DATA of the command and of the message after it, and CONN of a reply that it was not waiting for. */
function mayBeToTheMessage(error: unknown): boolean {
  const command = read(error, 'command');
  return command === 'CONN' || (command === 'DATA' && read(error, 'code') !== 'EENVELOPE');
}

/** Nodemailer's codes for what happened without a reply. The message is sent last, so that most come before it. */
const KINDS: Readonly<Record<string, FailureKind>> = {
  // No credentials, or a mechanism that nobody knows; a refusal comes with a reply.
  EAUTH: 'permanent',
  ENOAUTH: 'permanent',
  ECONFIG: 'permanent',
  EENVELOPE: 'permanent',
  EMAXRECIPIENTS: 'permanent',
  // Empty, or larger than the server takes.
  EMESSAGE: 'permanent',
  EREQUIRETLS: 'permanent',
  EFILEACCESS: 'permanent',
  EURLACCESS: 'permanent',
  ETLS: 'transient',
  EPROXY: 'transient',
  EOAUTH2: 'transient',
  // Its content could not be read; the server drops what it was sent without an end.
  ESTREAM: 'transient',
  EFETCH: 'transient',
  EPROTOCOL: 'in_doubt',
  ESENDMAIL: 'in_doubt',
};

/** @internal */
export function byMailCode(error: unknown): Failure | undefined {
  const code = read(error, 'code');
  if (typeof code !== 'string') return undefined;
  // Refused by a connection that was already closed.
  if (code === 'ECONNECTION' && read(error, 'command') === 'API') return { kind: 'transient', code: code };
  if (!isMailCode(code)) return undefined;
  // The server that gives out tokens could not be asked.
  if (code === 'EAUTH' && read(error, 'originalCode') !== undefined) return { kind: 'transient', code: code };
  return { kind: KINDS[code] as FailureKind, code: code };
}

/** @internal */
export function isMailCode(code: string): boolean {
  return Object.hasOwn(KINDS, code);
}
