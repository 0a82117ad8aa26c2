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
  // Other errors have response codes too; nodemailer's also have the command that was answered.
  if (typeof code !== 'number' || typeof read(error, 'command') !== 'string') return undefined;
  return signed('answer', { kind: kindOf(code, error), code: `smtp_${code}` });
}

function kindOf(code: number, error: unknown): FailureKind {
  // The session was in another state than the client thought; in a new session the same message may go through.
  if (code === 503) return 'transient';
  if (code >= 500) return 'permanent';
  // A positive reply where another one was expected.
  if (code < 400) return 'in_doubt';
  const isRefusal = code === 421 || code === 450 || code === 452;
  return isRefusal || !mayBeToTheMessage(error) ? 'transient' : 'in_doubt';
}

/** Nodemailer says DATA for the command and for the message after it, and CONN for a reply that it did not expect. */
function mayBeToTheMessage(error: unknown): boolean {
  const command = read(error, 'command');
  return command === 'CONN' || (command === 'DATA' && read(error, 'code') !== 'EENVELOPE');
}

/** Nodemailer's codes for failures without a reply. The message is sent last, so most failures come before it. */
const KINDS: Readonly<Record<string, FailureKind>> = {
  // No credentials, or an unknown mechanism. When the server refuses, there is a reply.
  EAUTH: 'permanent',
  ENOAUTH: 'permanent',
  ECONFIG: 'permanent',
  EENVELOPE: 'permanent',
  EMAXRECIPIENTS: 'permanent',
  // The message is empty, or larger than the server takes.
  EMESSAGE: 'permanent',
  EREQUIRETLS: 'permanent',
  EFILEACCESS: 'permanent',
  EURLACCESS: 'permanent',
  ETLS: 'transient',
  EPROXY: 'transient',
  EOAUTH2: 'transient',
  // Its content could not be read; the server drops a message that was not finished.
  ESTREAM: 'transient',
  EFETCH: 'transient',
  EPROTOCOL: 'in_doubt',
  ESENDMAIL: 'in_doubt',
};

/** @internal */
export function byMailCode(error: unknown): Failure | undefined {
  const code = read(error, 'code');
  if (typeof code !== 'string') return undefined;
  // A connection that was already closed rejected the mail.
  if (code === 'ECONNECTION' && read(error, 'command') === 'API') return { kind: 'transient', code };
  if (!isMailCode(code)) return undefined;
  // The server that issues tokens could not be reached.
  if (code === 'EAUTH' && read(error, 'originalCode') !== undefined) return { kind: 'transient', code };
  return { kind: KINDS[code] as FailureKind, code };
}

/** @internal */
export function isMailCode(code: string): boolean {
  return Object.hasOwn(KINDS, code);
}
