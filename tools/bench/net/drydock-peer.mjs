// One network of ours in a process of its own, so that its CPU time and memory can be told. Ends with its standard input.
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { profileWorker } from './profile.mjs';

const { root, netns, mtu, published, wire, profile } = JSON.parse(process.argv[2]);
const { createNetstack } = await import(pathToFileURL(`${root}/dist/netstack/index.js`));
const network = await createNetstack({ name: 'bench', subnet: '10.98.0.0/24', mtuBytes: mtu });
const endProfile = profile && (await profileWorker());
const guest = wire
  ? await network.listenLink('qemu', `unix://${wire}`)
  : await network.attach({ namespacePath: `/run/netns/${netns}`, interfaceName: 'eth0', names: [] });
if (published)
  await network.publish({
    protocol: 'tcp',
    hostAddress: '127.0.0.1',
    hostPort: published.port,
    guestAddress: guest.address,
    guestPort: published.guestPort,
  });
console.log(JSON.stringify({ gateway: network.gateway }));
process.stdin.resume();
await once(process.stdin, 'end');
if (endProfile) writeFileSync(profile, JSON.stringify(await endProfile()));
await network.close();
