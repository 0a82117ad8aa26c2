/** SMTP around the post office: no login, no encryption, one recipient per mail. */
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { SMTPServer, type SMTPServerSession } from 'smtp-server';
import type { RunningServer } from '../http/http-server.js';
import type { PostOffice } from './post-office.js';

/** What the package keeps of each connection, undocumented but the only way to its socket. */
interface Connection {
  readonly session: SMTPServerSession;
  readonly _socket: Socket;
}

/** Serves the post office on loopback; port 0 is a free one. */
export async function startSmtpServer(port: number, office: PostOffice): Promise<RunningServer> {
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['AUTH', 'STARTTLS'],
    disableReverseLookup: true,
    closeTimeout: 100,
    onRcptTo(_address, session, callback) {
      // One effect per arrival: a mail to two would be two effects in one, with a fault that hits half of it.
      const isSecond = session.envelope.rcptTo.length > 0;
      callback(isSecond ? smtpError(452, 'One recipient per mail, please') : null);
    },
    onData(stream, session, callback) {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      // The client left in the middle of the mail: nothing has arrived.
      stream.on('error', () => undefined);
      stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope;
        const from = mailFrom ? mailFrom.address : '';
        const raw = Buffer.concat(chunks).toString('latin1');
        office.receive(raw, from, rcptTo[0]?.address ?? '', socketOf(server, session)).then(
          (reply) => {
            if (reply) callback(reply.code === 250 ? null : smtpError(reply.code, reply.text), reply.text);
          },
          (error: unknown) => {
            console.error(error);
            callback(smtpError(554, 'The simulator itself has failed, see its log'));
          },
        );
      });
    },
  });
  // A connection that breaks off is everyday life here, and no reason to end the process.
  server.on('error', () => undefined);
  const listening = server.listen(port, '127.0.0.1');
  await once(listening, 'listening');
  return {
    port: (listening.address() as AddressInfo).port,
    async close() {
      for (const connection of server.connections as Set<Connection>) connection._socket.destroy();
      await new Promise<void>((resolve) => server.close(resolve));
    },
  };
}

function socketOf(server: SMTPServer, session: SMTPServerSession): Socket {
  for (const connection of server.connections as Set<Connection>) {
    if (connection.session === session) return connection._socket;
  }
  throw new Error('The connection was closed before its mail was complete');
}

function smtpError(responseCode: number, text: string): Error {
  return Object.assign(new Error(text), { responseCode });
}
