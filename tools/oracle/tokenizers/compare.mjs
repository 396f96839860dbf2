// node compare.mjs BINARY COUNT TOKENIZER...: COUNT random strings through the official library and through BINARY
// (tokenizer_lines); ids, offsets and decoded texts must be equal. Exits 1 with the first differences otherwise.
// "components" (or "components:EXPRESSION", by name) among the tokenizers: components over every code point
// (components.mjs); "random:FIRST-LAST": tokenizers of random parts (random_files.mjs), 60 strings and pairs each.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Tokenizer } from 'tokenizers';
import { components, everyCodePoint } from './components.mjs';
import { randomFile } from './random_files.mjs';
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

// pairs of strings, with and without special tokens, through both; says so of files that only one of them loads
async function compareRandom(seed) {
  const folder = mkdtempSync(join(tmpdir(), 'random-'));
  const json = randomFile(seed);
  const path = join(folder, `${seed}.json`);
  writeFileSync(path, JSON.stringify(json));
  let official;
  try {
    official = Tokenizer.fromFile(path);
  } catch {
    rmSync(folder, { recursive: true });
    return 0;
  }
  const vocab = Array.isArray(json.model.vocab) ? json.model.vocab.map((p) => p[0]) : Object.keys(json.model.vocab);
  const texts = [...strings(seed, 60, json.added_tokens.map((t) => t.content).concat(vocab.slice(-300)))];
  const questions = texts.map((text, i) => ({ text, special: i % 3 !== 1, ...(i % 3 === 2 ? { pair: texts[i - 1] } : {}) }));
  const { stdout } = spawnSync(binary, [path], { input: questions.map((q) => JSON.stringify(q) + '\n').join(''), encoding: 'utf8', maxBuffer: 1 << 28 });
  const lines = stdout.split('\n');
  const ask = async (library, q) => {
    try {
      const e = await library.encode(q.text, q.pair ?? null, { addSpecialTokens: q.special });
      const ids = Array.from(e.getIds());
      return { ids, type_ids: Array.from(e.getTypeIds()), mask: Array.from(e.getAttentionMask()), special: Array.from(e.getSpecialTokensMask()),
        offsets: e.getOffsets(), decode: await library.decode(ids, false), decode_skip: await library.decode(ids, true) };
    } catch (e) {
      return { error: String(e) };
    }
  };
  const difference = (theirs, ours) => Object.keys(theirs).concat(ours.error ? ['error'] : [])
    .find((k) => k === 'error' ? !theirs.error || !ours.error : JSON.stringify(ours[k]) !== JSON.stringify(theirs[k]));
  for (const [i, q] of questions.entries()) {
    let theirs = await ask(official, q);
    const ours = lines[i] ? JSON.parse(lines[i]) : { error: 'refused' };
    let key = difference(theirs, ours);
    // of added tokens that normalize to one text the library takes one by lot, anew each time it loads the file
    for (let lot = 0; key && lot < 30; lot++) key = difference(await ask(Tokenizer.fromFile(path), q), ours);
    if (!key) continue;
    const { model, ...rest } = json;
    console.log(`random ${seed} (${model.type}): ${key} differ for ${JSON.stringify(q)}\n  official ${JSON.stringify(theirs[key] ?? theirs).slice(0, 600)}\n  ours     ${JSON.stringify(ours[key] ?? ours).slice(0, 600)}\n  ${JSON.stringify({ ...rest, model: { ...model, vocab: 0, merges: 0 } }).slice(0, 3000)}`);
    failed = true;
    break;
  }
  rmSync(folder, { recursive: true });
  return questions.length;
}

// each in a process of its own: the official library ends the whole process on some of these files
function compareRandomRange(first, last) {
  let compared = 0, aborted = 0, different = 0;
  for (let seed = first; seed <= last; seed++) {
    const run = spawnSync(process.execPath, [process.argv[1], binary, '1', `random:${seed}`], { encoding: 'utf8' });
    const counted = /^compared (\d+)$/m.exec(run.stdout);
    if (!counted) {
      aborted++;
      continue;
    }
    compared += Number(counted[1]);
    if (run.status && different++ < 20) console.log(run.stdout.replace(/^compared.*\n/m, ''));
  }
  console.log(`random ${first}-${last}: ${compared} strings, ${different} files with differences, ${aborted} that the official library cannot bear`);
  failed ||= different > 0 || compared === 0;
}

for (const file of files) {
  const range = /^random:(\d+)(?:-(\d+))?$/.exec(file);
  if (range?.[2]) {
    compareRandomRange(Number(range[1]), Number(range[2]));
    continue;
  }
  if (range) {
    console.log(`compared ${await compareRandom(Number(range[1]))}`);
    continue;
  }
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
