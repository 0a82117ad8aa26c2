import { describe, expect, it } from 'vitest';
import { readMessage } from './mail-message.js';

describe('readMessage', () => {
  it('unfolds headers and takes their names in any case', () => {
    const { headers, body } = readMessage(
      'X-Tenant: acme\r\nSUBJECT: one\r\n two\r\n\tthree\r\n\r\nHello\r\nyou\r\n',
    );
    expect(Object.fromEntries(headers)).toEqual({ 'x-tenant': 'acme', subject: 'one two three' });
    expect(body).toBe('Hello\nyou');
  });

  it.each([
    ['=?UTF-8?Q?caf=C3=A9_=E2=82=AC?=', 'café €'],
    ['=?UTF-8?B?Y2Fmw6k=?= =?UTF-8?B?IOKCrA==?=', 'café €'],
  ])('decodes the words %s', (encoded, text) => {
    expect(readMessage(`Subject: ${encoded}\r\n\r\n`).headers.get('subject')).toBe(text);
  });

  it.each([
    ['quoted-printable', 'caf=C3=A9 =\r\n=E2=82=AC'],
    ['base64', 'Y2Fmw6kg\r\n4oKs'],
    ['8bit', Buffer.from('café €').toString('latin1')],
  ])('decodes a body in %s', (encoding, body) => {
    expect(readMessage(`Content-Transfer-Encoding: ${encoding}\r\n\r\n${body}`).body).toBe('café €');
  });

  it('takes a message without a body', () => {
    expect(readMessage('Subject: nothing').body).toBe('');
  });
});
