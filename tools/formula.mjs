// Prints a Homebrew formula for a released package, with its checksum:
//
//   npm pack && node tools/formula.mjs drydock-0.1.0.tgz https://example.org/drydock-0.1.0.tgz https://example.org/drydock > drydock.rb
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const [tarball, url, homepage] = process.argv.slice(2);
if (homepage === undefined) {
  console.error('usage: node tools/formula.mjs TARBALL URL-OF-IT HOMEPAGE');
  process.exit(2);
}
const { description, license } = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
);
const sha256 = createHash('sha256').update(readFileSync(tarball)).digest('hex');
process.stdout.write(`class Drydock < Formula
  desc "${description.split(':')[0]}"
  homepage "${homepage}"
  url "${url}"
  sha256 "${sha256}"
  license "${license}"

  depends_on "node"

  def install
    system "npm", "install", *std_npm_args
    bin.install_symlink libexec.glob("bin/*")
    man1.install_symlink Dir[libexec/"lib/node_modules/drydock/dist/man/*.1"]
    generate_completions_from_executable(bin/"drydock", "completion")
  end

  service do
    run [opt_bin/"drydock", "daemon", "--host", "unix:///var/run/drydock/docker.sock"]
    keep_alive crashed: true
    require_root true
    log_path var/"log/drydock.log"
    error_log_path var/"log/drydock.log"
  end

  def caveats
    <<~EOS
      Let docker know it:
        drydock context create --host unix:///var/run/drydock/docker.sock
        docker context use drydock
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/drydock version")
  end
end
`);
