/** TCP by the book: every conversation of the tables with a connection alone. */
import { describe, test } from 'vitest';
import { connectionAlone } from '../support/netstack/tcp/alone.ts';
import { closeTopics } from '../support/netstack/tcp/close.ts';
import { ecnTopics } from '../support/netstack/tcp/ecn.ts';
import { handshakeTopics } from '../support/netstack/tcp/handshake.ts';
import { recoveryTopics } from '../support/netstack/tcp/recovery.ts';
import { casesOf, play } from '../support/netstack/tcp/script.ts';
import { transferTopics } from '../support/netstack/tcp/transfer.ts';

const topics = { ...handshakeTopics, ...transferTopics, ...closeTopics, ...recoveryTopics, ...ecnTopics };

for (const [topic, table] of Object.entries(topics)) {
  describe(topic, () => {
    for (const [name, script, options] of casesOf(table)) {
      test(name, () => play(connectionAlone, script, options));
    }
  });
}
