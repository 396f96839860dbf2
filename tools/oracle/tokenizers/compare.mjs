// node compare.mjs BINARY COUNT TOKENIZER...: COUNT random strings through the official library and through BINARY
// (tokenizer_lines); ids, offsets and decoded texts must be equal. Exits 1 with the first differences otherwise.
// "components" (or "components:EXPRESSION", by name) among the tokenizers: components over every code point
// (components.mjs).
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Tokenizer } from 'tokenizers';
import { components, everyCodePoint } from './components.mjs';
import { strings } from './strings.mjs';

const [binary, countText, ...files] = process.argv.slice(2);
const count = Number(countText);
const chunk = 500;
let failed = false;

function show(file, key, text, theirs, ours) {
  let from = 0;  // long lists: from the first difference on
  if (text.length > 300)
    while (JSON.stringify(theirs[from]) === JSON.stringify(ours[from])) from++;
  const part = (v) => JSON.stringify(v.slice(Math.max(0, from - 2), from + 300)).slice(0, 600);
  console.log(`${file}: ${key} differ for ${JSON.stringify(text).slice(0, 600)}\n  official ${part(theirs)}\n  ours     ${part(ours)}`);
}

async function compare(file, texts) {
  const json = JSON.parse(readFileSync(file, 'utf8'));
  const vocab = Array.isArray(json.model.vocab) ? json.model.vocab.map((p) => p[0]) : Object.keys(json.model.vocab);
  const pieces = json.added_tokens.map((t) => t.content).concat(vocab.slice(-400));
  const official = Tokenizer.fromFile(file);
  const child = spawn(binary, [file], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.on('error', () => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let differences = 0, done = 0, batch = [];
  const run = async () => {
    child.stdin.write(batch.map((text) => JSON.stringify({ text }) + '\n').join(''));
    const encodings = await Promise.all(batch.map((text) => official.encode(text)));
    const ids = encodings.map((e) => Array.from(e.getIds()));
    const decoded = await official.decodeBatch(ids, false), skipped = await official.decodeBatch(ids, true);
    for (let i = 0; i < batch.length; i++) {
      const line = await lines.next();
      if (line.done) throw new Error(`${binary} ended early`);
      const ours = JSON.parse(line.value);
      const theirs = { ids: ids[i], offsets: encodings[i].getOffsets(), decode: decoded[i], decode_skip: skipped[i] };
      for (const key of Object.keys(theirs)) {
        if (JSON.stringify(ours[key]) === JSON.stringify(theirs[key])) continue;
        if (differences++ < 5) show(file, key, batch[i], theirs[key], ours[key]);
        break;
      }
    }
    done += batch.length;
    batch = [];
  };
  for (const text of texts ?? strings(1, count, pieces)) {
    batch.push(text);
    if (batch.length === chunk) await run();
  }
  if (batch.length) await run();
  child.stdin.end();
  console.log(`${file}: ${done} strings, ${differences} differences`);
  failed ||= differences > 0;
}

for (const file of files) {
  if (!/^components(:|$)/.test(file)) {
    await compare(file);
    continue;
  }
  const folder = mkdtempSync(join(tmpdir(), 'components-'));
  const wanted = new RegExp(file.slice('components:'.length));
  for (const [name, json] of Object.entries(components()).filter(([name]) => wanted.test(name))) {
    const path = join(folder, `${name.replaceAll('/', '_')}.json`);
    writeFileSync(path, JSON.stringify(json));
    await compare(path, everyCodePoint());
  }
  rmSync(folder, { recursive: true });
}
process.exit(failed ? 1 : 0);
