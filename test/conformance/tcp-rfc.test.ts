/** TCP by the book through the whole stack: the same conversations as with a connection alone, as raw frames. */
import { describe, it } from 'vitest';
import { closeTopics } from '../support/netstack/tcp/close.ts';
import { ecnTopics } from '../support/netstack/tcp/ecn.ts';
import { handshakeTopics } from '../support/netstack/tcp/handshake.ts';
import { recoveryTopics } from '../support/netstack/tcp/recovery.ts';
import { casesOf, play } from '../support/netstack/tcp/script.ts';
import { throughStack } from '../support/netstack/tcp/through-stack.ts';
import { transferTopics } from '../support/netstack/tcp/transfer.ts';

const topics = { ...handshakeTopics, ...transferTopics, ...closeTopics, ...recoveryTopics, ...ecnTopics };

for (const [topic, table] of Object.entries(topics)) {
  describe(topic, () => {
    for (const [name, script, options] of casesOf(table)) {
      if (!options.aloneBecause) it(name, () => play(throughStack, script, options));
    }
  });
}
