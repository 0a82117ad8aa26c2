import { describe, expect, it } from 'vitest';
import { classify } from './classify.js';
import type { FailureKind } from '../../operation/reasons.js';

const failing = (properties: object): Error => Object.assign(new Error('failed'), properties);

describe('classify: what nodemailer throws', () => {
  it.each<[string, object, FailureKind]>([
    ['credentials that are wrong', { code: 'EAUTH', responseCode: 535, command: 'AUTH PLAIN' }, 'permanent'],
    [
      'credentials it cannot look up now',
      { code: 'EAUTH', responseCode: 454, command: 'AUTH PLAIN' },
      'transient',
    ],
    ['credentials that are missing', { code: 'EAUTH', command: 'API' }, 'permanent'],
    [
      'a token it could not get',
      { code: 'EAUTH', originalCode: 'EFETCH', command: 'AUTH XOAUTH2' },
      'transient',
    ],
    ['credentials that it insists on', { code: 'ENOAUTH' }, 'permanent'],
    [
      'a recipient that is refused',
      { code: 'EENVELOPE', responseCode: 550, command: 'RCPT TO' },
      'permanent',
    ],
    [
      'a recipient that is put off',
      { code: 'EENVELOPE', responseCode: 451, command: 'RCPT TO' },
      'transient',
    ],
    ['a message that may not begin', { code: 'EENVELOPE', responseCode: 451, command: 'DATA' }, 'transient'],
    ['a message without recipients', { code: 'EENVELOPE', command: 'API' }, 'permanent'],
    ['a message that is too large', { code: 'EMESSAGE', command: 'MAIL FROM' }, 'permanent'],
    ['a message that is refused', { code: 'EMESSAGE', responseCode: 554, command: 'DATA' }, 'permanent'],
    [
      'a message that is lost on the way',
      { code: 'EMESSAGE', responseCode: 451, command: 'DATA' },
      'in_doubt',
    ],
    ['a session out of step', { code: 'EENVELOPE', responseCode: 503, command: 'MAIL FROM' }, 'transient'],
    [
      'an attachment that cannot be read',
      { code: 'ESTREAM', originalCode: 'ENOENT', command: 'API' },
      'transient',
    ],
    ['an attachment that cannot be fetched', { code: 'EFETCH' }, 'transient'],
    ['an attachment that must not be read', { code: 'EFILEACCESS' }, 'permanent'],
    ['an attachment that must not be fetched', { code: 'EURLACCESS' }, 'permanent'],
    ['too many recipients', { code: 'EMAXRECIPIENTS' }, 'permanent'],
    ['options that are wrong', { code: 'ECONFIG' }, 'permanent'],
    ['no TLS', { code: 'ETLS', command: 'STARTTLS' }, 'transient'],
    ['no TLS all the way', { code: 'EREQUIRETLS', command: 'MAIL FROM' }, 'permanent'],
    ['a proxy that refuses', { code: 'EPROXY' }, 'transient'],
    ['a token that is refused', { code: 'EOAUTH2' }, 'transient'],
    ['a greeting that is none', { code: 'EPROTOCOL', responseCode: 421, command: 'CONN' }, 'transient'],
    ['a word out of turn', { code: 'EPROTOCOL', responseCode: 451, command: 'CONN' }, 'in_doubt'],
    ['a yes out of turn', { code: 'EPROTOCOL', responseCode: 250, command: 'CONN' }, 'in_doubt'],
    ['words without end', { code: 'EPROTOCOL', command: 'CONN' }, 'in_doubt'],
    ['a connection that was closed before', { code: 'ECONNECTION', command: 'API' }, 'transient'],
    ['sendmail that failed', { code: 'ESENDMAIL' }, 'in_doubt'],
    ['a send that was aborted', { code: 'EABORT', name: 'AbortError' }, 'in_doubt'],
    ['a certificate that is over', { code: 'ESOCKET', originalCode: 'CERT_HAS_EXPIRED' }, 'transient'],
    ['a socket that broke', { code: 'ESOCKET', originalCode: 'EPIPE', syscall: 'write' }, 'in_doubt'],
    ['a socket that broke somehow', { code: 'ESOCKET', originalCode: 'EODD' }, 'in_doubt'],
  ])('%s: %o is %s', (_what, properties, kind) => {
    expect(classify(failing(properties)).kind).toBe(kind);
  });
});
