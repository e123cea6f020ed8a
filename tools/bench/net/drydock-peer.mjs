// One network of ours in a process of its own, so that its CPU time and memory can be told. Ends with its standard input.
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [root, netns, mtu] = process.argv.slice(2);
const { createNetwork } = await import(pathToFileURL(`${root}/dist/netstack/index.js`));
const network = await createNetwork({ name: 'bench', subnet: '10.98.0.0/24', mtuBytes: Number(mtu) });
const guest = await network.attach({
  namespacePath: `/run/netns/${netns}`,
  interfaceName: 'eth0',
  names: [],
});
console.log(JSON.stringify({ gateway: network.gateway, address: guest.address }));
for await (const line of createInterface(process.stdin)) {
  const { port, guestPort } = JSON.parse(line);
  await network.publish({
    protocol: 'tcp',
    hostAddress: '127.0.0.1',
    hostPort: port,
    guestAddress: guest.address,
    guestPort,
  });
  console.log('published');
}
await network.close();
