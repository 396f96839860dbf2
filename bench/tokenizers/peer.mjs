// The official core on the same text: node peer.mjs TOKENIZER TEXT [ROUNDS], one thread (RAYON_NUM_THREADS=1).
import { readFileSync } from 'node:fs';
import { Tokenizer } from 'tokenizers';

const [tokenizerPath, textPath, rounds = '5'] = process.argv.slice(2);
const tokenizer = Tokenizer.fromFile(tokenizerPath);
const whole = readFileSync(textPath, 'utf8');
const lines = whole.split('\n');
const mb = Buffer.byteLength(whole) / 1e6;

async function report(name, run) {
  let best = Infinity, tokens = 0;
  for (let i = 0; i < Number(rounds); i++) {
    const start = performance.now();
    tokens = await run();
    best = Math.min(best, performance.now() - start);
  }
  console.log(`official  ${name.padEnd(22)} ${(mb / best * 1e3).toFixed(2).padStart(8)} MB/s  ${tokens} tokens`);
}

await report('whole', async () => (await tokenizer.encode(whole)).getLength());
await report('lines, one batch', async () => (await tokenizer.encodeBatch(lines)).reduce((n, e) => n + e.getLength(), 0));
