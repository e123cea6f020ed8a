import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { type Docker, finish, IMAGE } from '../support/e2e/daemon.ts';
import { describeE2e, sharedDocker, uniqueName } from '../support/e2e/session.ts';

/** A web server in a few characters, for containers. */
const WEB_SERVER =
  "require('http').createServer((q,r)=>r.end('served '+q.url+' to '+q.socket.remoteAddress)).listen(80,()=>console.log('up'))";

describeE2e('network', () => {
  let docker: Docker;
  const sh = (script: string, ...options: string[]): Promise<string> =>
    docker.ok(['run', '--rm', ...options, IMAGE, 'sh', '-c', script]);
  const node = (script: string, ...options: string[]): Promise<string> =>
    docker.ok(['run', '--rm', ...options, IMAGE, 'node', '-e', script]);
  const curl = (...args: string[]) =>
    finish(spawn('curl', ['-sS', '--max-time', '20', ...args], { stdio: 'pipe' }));
  const serve = async (...options: string[]): Promise<string> => {
    const name = uniqueName('web');
    await docker.ok(['run', '-d', '--name', name, ...options, IMAGE, 'node', '-e', WEB_SERVER]);
    await expect.poll(() => docker.ok(['logs', name]), { timeout: 15_000 }).toBe('up');
    return name;
  };

  beforeAll(() => {
    docker = sharedDocker();
  });
  afterEach(() => docker.removeAll());

  it('no kernel bridge, veth or packet filter rule is made', async () => {
    await serve();
    const links = readFileSync('/proc/net/dev', 'utf8');
    expect(links).not.toMatch(/docker|veth|br-/);
  });

  it('the address is the one that inspect tells, with a route through the gateway', async () => {
    const name = await serve();
    const { NetworkSettings } = await docker.inspect<{
      NetworkSettings: { IPAddress: string; Gateway: string; MacAddress: string };
    }>(name);
    const inside = await docker.ok([
      'exec',
      name,
      'sh',
      '-c',
      'cat /proc/net/fib_trie /proc/net/route /sys/class/net/eth0/address',
    ]);
    expect(inside).toContain(NetworkSettings.IPAddress);
    expect(inside).toContain(NetworkSettings.MacAddress);
    const gatewayHex = NetworkSettings.Gateway.split('.')
      .reverse()
      .map((n) => Number(n).toString(16).padStart(2, '0'))
      .join('')
      .toUpperCase();
    expect(inside).toContain(gatewayHex);
  });

  it('reaches a TCP server on the host, both ways, to the last byte', async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      let received = 0;
      socket.on('data', (chunk) => (received += chunk.length));
      socket.on('end', () => socket.end(Buffer.alloc(3_000_000, received === 2_000_000 ? 'y' : 'n')));
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    try {
      const { port } = server.address() as AddressInfo;
      const client = `const s=require('net').connect({host:'host.docker.internal',port:${port},allowHalfOpen:true});let n=0,y=0;s.on('data',d=>{n+=d.length;y+=d.filter(b=>b===121).length});s.on('end',()=>console.log(n,y));s.end(Buffer.alloc(2000000))`;
      expect(await node(client)).toBe('3000000 3000000');
    } finally {
      server.close();
    }
  });

  it('a closed port on the host is refused at once', async () => {
    expect(
      await node("require('net').connect(1,'host.docker.internal').on('error',e=>console.log(e.code))"),
    ).toBe('ECONNREFUSED');
  });

  it('reaches a UDP server on the host and gets the answer', async () => {
    const server = createSocket('udp4', (message, from) =>
      server.send(`echo ${message}`, from.port, from.address),
    );
    await new Promise<void>((resolve) => server.bind(0, '127.0.0.1', resolve));
    try {
      const client = `const s=require('dgram').createSocket('udp4');s.on('message',m=>{console.log(''+m);s.close()});const go=()=>s.send('hi',${server.address().port},'host.docker.internal');go()`;
      expect(await node(client)).toBe('echo hi');
    } finally {
      server.close();
    }
  });

  it('answers and sends ping', async () => {
    const name = await serve();
    const { NetworkSettings } = await docker.inspect<{
      NetworkSettings: { IPAddress: string; Gateway: string };
    }>(name);
    expect(await docker.ok(['exec', name, 'ping', '-c', '1', '-W', '5', NetworkSettings.Gateway])).toMatch(
      /1 (packets )?received/,
    );
    expect(await sh(`ping -c 1 -W 5 ${NetworkSettings.IPAddress}`)).toMatch(/1 (packets )?received/);
    expect(await sh('ping -c 1 -W 5 127.0.0.1')).toMatch(/1 (packets )?received/);
  });

  it('reaches other containers on the same network by address and by name', async () => {
    const name = await serve('--hostname', 'webhost');
    const { NetworkSettings } = await docker.inspect<{ NetworkSettings: { IPAddress: string } }>(name);
    const fetchBody = (host: string): string =>
      `fetch('http://${host}/a').then(r=>r.text()).then(t=>console.log(t.split(' to ')[0]))`;
    expect(await node(fetchBody(NetworkSettings.IPAddress))).toBe('served /a');
    expect(await node(fetchBody(name))).toBe('served /a');
  });

  it('user networks: name and alias resolve within, not across', async () => {
    const [a, b] = [uniqueName('net'), uniqueName('net')];
    for (const network of [a, b]) await docker.ok(['network', 'create', network]);
    try {
      const name = await serve('--network', a, '--network-alias', 'alias-of-web');
      const lookup = "require('dns').lookup('alias-of-web',(e,x)=>console.log(e?e.code:x))";
      const { NetworkSettings } = await docker.inspect<{
        NetworkSettings: { Networks: Record<string, { IPAddress: string }> };
      }>(name);
      expect(await node(lookup, '--network', a)).toBe(NetworkSettings.Networks[a]!.IPAddress);
      expect(await node(lookup, '--network', b)).toMatch(/ENOTFOUND|EAI_AGAIN/);
    } finally {
      await docker.removeAll();
      for (const network of [a, b]) await docker.ok(['network', 'rm', network]);
    }
  });

  it('enable_icc=false keeps containers apart, host_binding_ipv4 says where ports are published', async () => {
    const network = uniqueName('apart');
    const options = ['enable_icc=false', 'host_binding_ipv4=127.0.0.2'];
    await docker.ok([
      ...['network', 'create', ...options.flatMap((text) => ['-o', `com.docker.network.bridge.${text}`])],
      network,
    ]);
    const web = await serve('--network', network, '-p', '80');
    const script = `const s=require('net').connect({host:'${web}',port:80,timeout:2000});s.on('connect',()=>console.log('reached')).on('timeout',()=>{console.log('apart');process.exit()}).on('error',e=>console.log(e.code))`;
    expect(await node(script, '--network', network)).toMatch(/apart|EHOSTUNREACH/);
    const published = await docker.ok(['port', web, '80']);
    expect(published).toMatch(/^127\.0\.0\.2:\d+$/);
    expect((await curl(`http://${published}/x`)).stdout).toContain('served /x');
    await docker.removeAll();
    await docker.ok(['network', 'rm', network]);
  });

  it('a network without IPv4 has names, ports and the way out by IPv6 alone', async () => {
    const network = uniqueName('six');
    const made = await docker.api('POST', '/v1.48/networks/create', {
      Name: network,
      EnableIPv4: false,
      EnableIPv6: true,
    });
    expect(made.status, made.body).toBe(201);
    const web = await serve('--network', network, '-p', '80');
    const { NetworkSettings } = await docker.inspect<{
      NetworkSettings: { Networks: Record<string, Record<string, string>> };
    }>(web);
    const { GlobalIPv6Address, IPAddress, Gateway } = NetworkSettings.Networks[network]!;
    expect([IPAddress, Gateway]).toEqual(['', '']);
    expect(await docker.ok(['exec', web, 'cat', '/proc/net/route'])).not.toContain('eth0');
    const lookup = `require('dns').lookup('${web}',{all:true},(e,x)=>console.log(e?e.code:JSON.stringify(x)))`;
    expect(await node(lookup, '--network', network)).toBe(
      JSON.stringify([{ address: GlobalIPv6Address, family: 6 }]),
    );
    const visit = `fetch('http://${web}/a').then(r=>r.text()).then(t=>console.log(t.split(' to ')[0]))`;
    expect(await node(visit, '--network', network)).toBe('served /a');
    const published = (await docker.ok(['port', web, '80'])).split('\n');
    for (const place of published)
      expect((await curl(`http://${place.replace('0.0.0.0', '127.0.0.1')}/x`)).stdout).toContain('served /x');
    const server = createServer((socket) => socket.end('from the host')).listen(0, '::1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    const client = `require('net').connect(${port},'host.docker.internal').on('data',d=>console.log(''+d)).on('error',e=>console.log(e.code))`;
    expect(await node(client, '--network', network)).toBe('from the host');
    server.close();
    await docker.removeAll();
    await docker.ok(['network', 'rm', network]);
  });

  it('an isolated network shows no gateway, resolves names and leads nowhere', async () => {
    const network = uniqueName('isolated');
    const option = 'com.docker.network.bridge.gateway_mode_ipv4=isolated';
    const open = await docker.run(['network', 'create', '-o', option, network]);
    expect(open.stderr).toContain("gateway mode 'isolated' can only be used for an internal network");
    await docker.ok(['network', 'create', '--internal', '-o', option, network]);
    expect(
      await docker.ok(['network', 'inspect', '-f', '{{range .IPAM.Config}}{{.Gateway}}{{end}}', network]),
    ).toBe('');
    const web = await serve('--network', network);
    const visit = `fetch('http://${web}/a').then(r=>r.text()).then(t=>console.log(t.split(' to ')[0]))`;
    expect(await node(visit, '--network', network)).toBe('served /a');
    expect(await docker.ok(['exec', web, 'cat', '/proc/net/route'])).not.toMatch(/^eth0\t00000000/m);
    await docker.removeAll();
    await docker.ok(['network', 'rm', network]);
  });

  it('an endpoint has its interface name, settings and link-local address; a later network may take the default route', async () => {
    const [first, second] = [uniqueName('first'), uniqueName('second')];
    for (const network of [first, second]) await docker.ok(['network', 'create', network]);
    const name = uniqueName('endpoint');
    const endpoint = {
      DriverOpts: {
        'com.docker.network.endpoint.ifname': 'lan0',
        'com.docker.network.endpoint.sysctls': 'net.ipv4.conf.IFNAME.log_martians=1',
      },
      IPAMConfig: { LinkLocalIPs: ['169.254.7.7'] },
    };
    await docker.api('POST', `/containers/create?name=${name}`, {
      Image: IMAGE,
      Cmd: ['sleep', '1000'],
      HostConfig: { NetworkMode: first },
      NetworkingConfig: { EndpointsConfig: { [first]: endpoint } },
    });
    await docker.ok(['start', name]);
    const inside = (script: string): Promise<string> => docker.ok(['exec', name, 'sh', '-c', script]);
    expect(await inside('cat /proc/sys/net/ipv4/conf/lan0/log_martians; cat /proc/net/fib_trie')).toMatch(
      /^1\n[\s\S]*169\.254\.7\.7/,
    );
    const defaults =
      "awk '$2 == \"00000000\" {print $7, $1}' /proc/net/route | sort -n | head -1 | cut -d' ' -f2";
    expect(await inside(defaults)).toBe('lan0');
    const body = { Container: name, EndpointConfig: { GwPriority: 5 } };
    expect((await docker.api('POST', `/networks/${second}/connect`, body)).status).toBe(200);
    expect(await inside(defaults)).toBe('eth0');
    await docker.removeAll();
    await docker.ok(['network', 'rm', first, second]);
  });

  it('names on a further network are answered by DNS, for programs that read no hosts file too', async () => {
    const [front, back] = [uniqueName('front'), uniqueName('back')];
    for (const network of [front, back]) await docker.ok(['network', 'create', network]);
    const both = uniqueName('both');
    await docker.ok(['run', '-d', '--name', both, '--network', front, IMAGE, 'sleep', '1000']);
    await docker.ok(['run', '-d', '--name', 'behind', '--network', back, IMAGE, 'sleep', '1000']);
    await docker.ok(['network', 'connect', '--alias', 'me', back, both]);
    const resolve = "require('dns').resolve4('behind',(e,a)=>console.log(e?e.code:a[0]))";
    const { NetworkSettings } = await docker.inspect<{
      NetworkSettings: { Networks: Record<string, { IPAddress: string }> };
    }>('behind');
    expect(await docker.ok(['exec', both, 'node', '-e', resolve])).toBe(
      NetworkSettings.Networks[back]!.IPAddress,
    );
    await docker.ok(['network', 'disconnect', back, both]);
    expect(await docker.ok(['exec', both, 'node', '-e', resolve])).toBe('ENOTFOUND');
    await docker.removeAll();
    await docker.ok(['network', 'rm', front, back]);
  });

  it('-p publishes a port to the host: curl, docker port, and gone after the end', async () => {
    const name = await serve('-p', '127.0.0.1::80');
    const mapping = await docker.ok(['port', name, '80/tcp']);
    expect(mapping).toMatch(/^127\.0\.0\.1:\d+$/);
    const { stdout } = await curl(`http://${mapping}/path`);
    expect(stdout).toMatch(/^served \/path to /);
    await docker.ok(['stop', '-t', '0', name]);
    expect((await curl(`http://${mapping}/`)).code).toBe(7);
  });

  it('-p with a fixed port works again after a restart', async () => {
    const probe = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => probe.once('listening', resolve));
    const { port } = probe.address() as AddressInfo;
    await new Promise((resolve) => probe.close(resolve));
    const name = await serve('-p', `127.0.0.1:${port}:80`);
    expect((await curl(`http://127.0.0.1:${port}/1`)).stdout).toMatch(/^served \/1/);
    await docker.ok(['restart', '-t', '0', name]);
    await expect
      .poll(async () => (await curl(`http://127.0.0.1:${port}/2`)).stdout, { timeout: 15_000 })
      .toMatch(/^served \/2/);
  });

  it('-p publishes UDP', async () => {
    const name = uniqueName('udp');
    const echo =
      "const s=require('dgram').createSocket('udp4');s.on('message',(m,f)=>s.send('re:'+m,f.port,f.address));s.bind(53535,()=>console.log('up'))";
    await docker.ok(['run', '-d', '--name', name, '-p', '127.0.0.1::53535/udp', IMAGE, 'node', '-e', echo]);
    await expect.poll(() => docker.ok(['logs', name])).toBe('up');
    const port = Number((await docker.ok(['port', name, '53535/udp'])).split(':')[1]);
    const client = createSocket('udp4');
    try {
      const answer = new Promise((resolve) =>
        client.once('message', (message) => resolve(message.toString())),
      );
      client.send('x', port, '127.0.0.1');
      expect(await answer).toBe('re:x');
    } finally {
      client.close();
    }
  });

  it('a published port where nobody listens resets the client', async () => {
    const name = uniqueName('deaf');
    await docker.ok(['run', '-d', '--name', name, '-p', '127.0.0.1::80', IMAGE, 'sleep', '1000']);
    const mapping = await docker.ok(['port', name, '80/tcp']);
    expect((await curl(`http://${mapping}/`)).code).not.toBe(0);
  });

  it('--network none has only loopback, --network host the host’s interfaces', async () => {
    expect(await sh('ls /sys/class/net', '--network', 'none')).toBe('lo');
    const own = (await sh('cat /proc/net/dev', '--network', 'host')).split('\n').length;
    expect(own).toBe(readFileSync('/proc/net/dev', 'utf8').trim().split('\n').length);
  });
});
