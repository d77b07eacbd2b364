// Bundles src/ and writes it as a C++ source file: node build.mjs OUTPUT.cpp
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const output = process.argv[2];
if (!output) throw new Error('give the file to write: node build.mjs OUTPUT.cpp');

const bundled = await build({
  entryPoints: { page: join(here, 'src/main.jsx') },
  outdir: here,
  bundle: true,
  write: false,
  minify: true,
  format: 'esm',
  target: ['es2022'],
  jsx: 'automatic',
  jsxImportSource: 'preact',
  legalComments: 'none',
  logLevel: 'warning',
});
const ending = (name) => bundled.outputFiles.find((file) => file.path.endsWith(name)).contents;
const files = [
  ['/', 'text/html; charset=utf-8', readFileSync(join(here, 'src/index.html'))],
  ['/page.js', 'text/javascript; charset=utf-8', Buffer.from(ending('.js'))],
  ['/page.css', 'text/css; charset=utf-8', Buffer.from(ending('.css'))],
  ['/icon.svg', 'image/svg+xml', readFileSync(join(here, 'src/icon.svg'))],
];

const bytes = (name, content) => {
  const lines = [];
  for (let i = 0; i < content.length; i += 24) lines.push('    ' + [...content.subarray(i, i + 24)].join(','));
  return `constexpr unsigned char ${name}[] = {\n${lines.join(',\n')}};\n`;
};
let source = '// Made by ui/build.mjs.\n#include <array>\n\n#include "serve/page.h"\n\nnamespace thimble {\nnamespace {\n\n';
const rows = [];
let total = 0;
files.forEach(([path, type, content], i) => {
  const packed = gzipSync(content, { level: 9 });
  const etag = createHash('sha256').update(content).digest('hex').slice(0, 20);
  total += packed.length;
  source += bytes(`kPlain${i}`, content) + bytes(`kPacked${i}`, packed);
  rows.push(`      PageFile{"${path}", "${type}", "\\"${etag}\\"", view(kPlain${i}), view(kPacked${i})},`);
});
source += `
template <size_t N>
std::string_view view(const unsigned char (&bytes)[N]) {
  return {reinterpret_cast<const char*>(bytes), N};
}

}  // namespace

std::span<const PageFile> page_files() {
  static const std::array files = {
${rows.join('\n')}
  };
  return files;
}

}  // namespace thimble
`;
writeFileSync(output, source);
console.log(`the page: ${(total / 1024).toFixed(1)} KiB gzipped`);
