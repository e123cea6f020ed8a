import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type BridgePair, bridgePair } from '../support/bridge.ts';
import { lacking } from '../support/requirements.ts';

const run = promisify(execFile);
const TYPESCRIPT = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));

/** Runs a shell script and gives its output. */
async function sh(script: string, cwd: string): Promise<string> {
  const options = { cwd, timeout: 50_000, env: { ...process.env, HOME: cwd, LC_ALL: 'C' } };
  return (await run('sh', ['-euc', script], options)).stdout.trim();
}

describe.skipIf(lacking('root', '/dev/fuse', 'git', 'sqlite3', 'tar'))('programs on a bridge mount', () => {
  for (const consistency of ['consistent', 'cached', 'delegated'] as const) {
    describe(consistency, () => {
      let pair: BridgePair;
      beforeAll(async () => {
        pair = await bridgePair({ consistency });
      });
      afterEach(() => expect(pair.trouble).toEqual([]));
      afterAll(() => pair?.remove());

      it('git makes, clones, repacks and checks a repository', async () => {
        const script = `
          git init -q one && cd one
          git config user.email test@example.org && git config user.name Test
          for i in $(seq 60); do mkdir -p dir$((i % 7)); echo $i > dir$((i % 7))/file$i; done
          git add . && git commit -qm first
          git mv dir1 moved && echo change >> moved/file1 && git commit -qam second
          git clone -q . ../two && cd ../two
          git config gc.auto 0 && git gc -q && git fsck --strict
          git status --porcelain; git log --oneline | wc -l; git ls-files | wc -l`;
        expect(await sh(script, pair.guest(''))).toBe('2\n60');
        expect(await sh('git -C two -c safe.directory=* status --porcelain', pair.host(''))).toBe('');
      });

      it('sqlite in WAL mode keeps what several writers write', async () => {
        const writer = (n: number): Promise<string> =>
          sh(
            `for i in $(seq 20); do sqlite3 -cmd '.timeout 20000' db "insert into t values (${n}, $i)"; done`,
            pair.guest(''),
          );
        await sh("sqlite3 db 'pragma journal_mode=wal; create table t (writer, n);'", pair.guest(''));
        await Promise.all([writer(1), writer(2), writer(3)]);
        const check = "sqlite3 db 'select count(*), sum(n) from t; pragma integrity_check;'";
        expect(await sh(check, pair.guest(''))).toBe('60|630\nok');
      });

      it('tar packs and unpacks a tree with links, modes and times', async () => {
        await sh(
          `mkdir -p in/deep/er && cd in
           printf data > deep/er/file && ln deep/er/file hard && ln -s deep/er/file soft
           chmod 4711 deep/er/file && touch -d @1000000001.5 deep/er/file && touch -d @-5 deep
           mkfifo pipe && cd .. && tar --format=posix -cf t.tar in && mkdir out && tar xpf t.tar -C out`,
          pair.guest(''),
        );
        const list = (folder: string): Promise<string> =>
          sh(
            `cd ${folder} && find . -printf '%P %y %m %n %s %T@ %l\\n' | grep -v '^ ' | sort`,
            pair.host(''),
          );
        expect(await list('out/in')).toBe(await list('in'));
        expect(fs.statSync(pair.guest('out/in/hard')).ino).toBe(
          fs.statSync(pair.guest('out/in/deep/er/file')).ino,
        );
      });

      it('npm installs from a lock, and a compiler compiles', async () => {
        // Without a registry: the package is packed here, and npm's cache is on the mount as well.
        const script = `
          mkdir -p dep/lib app/src && cd dep
          echo '{"name":"dep","version":"1.0.0","bin":"run.js","types":"lib/f1.d.ts"}' > package.json
          printf '#!/bin/sh\necho installed' > run.js
          for i in $(seq 300); do
            echo "module.exports = $i" > lib/f$i.js; echo "declare const n: $i; export = n" > lib/f$i.d.ts
          done
          npm pack --silent >/dev/null && cd ../app
          echo '{"name":"app","dependencies":{"dep":"file:../dep/dep-1.0.0.tgz"}}' > package.json
          npm install --offline --silent >/dev/null && rm -rf node_modules && npm ci --offline --silent >/dev/null
          for i in $(seq 30); do echo "import n = require('dep/lib/f$i'); console.log(n);" > src/m$i.ts; done
          '${process.execPath}' '${TYPESCRIPT}' --outDir out --module commonjs --types '' src/*.ts
          node_modules/.bin/dep; ls node_modules/dep/lib | wc -l; node out/m7.js`;
        expect(await sh(script, pair.guest(''))).toBe('installed\n600\n7');
        expect(await sh('cd app && ls node_modules/dep/lib | wc -l; node out/m30.js', pair.host(''))).toBe(
          '600\n30',
        );
      });

      it('a tree that many processes change at once ends the same on both sides', async () => {
        const worker = (n: number): Promise<string> =>
          sh(
            `mkdir -p shared/w${n}; for i in $(seq 60); do
               echo $i > shared/w${n}/f$i; mv shared/w${n}/f$i shared/w${n}/g$i
               ln shared/w${n}/g$i shared/l${n}-$i; [ $((i % 3)) = 0 ] && rm shared/w${n}/g$i; done; true`,
            pair.guest(''),
          );
        await Promise.all([worker(1), worker(2), worker(3), worker(4)]);
        const list = 'cd shared && find . -type f -exec cksum {} + | sort';
        expect(await sh(list, pair.guest(''))).toBe(await sh(list, pair.host('')));
        expect(fs.readdirSync(pair.host('shared'))).toHaveLength(4 + 240);
      });
    });
  }
});
