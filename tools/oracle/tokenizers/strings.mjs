// Seeded random strings for tokenizers: scripts, emoji, controls, white space, numbers, code, pieces of the vocabulary and
// of the special tokens, and any code point at all.

export function random(seed) {
  let a = seed >>> 0;
  return () => {  // mulberry32
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const ranges = [
  [0x20, 0x7e], [0x20, 0x7e], [0xa0, 0xff], [0x100, 0x24f], [0x250, 0x36f], [0x370, 0x3ff], [0x400, 0x52f],
  [0x530, 0x5ff], [0x600, 0x6ff], [0x700, 0x8ff], [0x900, 0x97f], [0x980, 0xdff], [0xe00, 0xeff], [0xf00, 0xfff],
  [0x1000, 0x109f], [0x10a0, 0x13ff], [0x1400, 0x18af], [0x1900, 0x1aff], [0x1b00, 0x1cff], [0x1d00, 0x1fff],
  [0x2000, 0x206f], [0x2070, 0x23ff], [0x2400, 0x27bf], [0x2900, 0x2bff], [0x2c00, 0x2dff], [0x2e00, 0x2fff],
  [0x3000, 0x30ff], [0x3100, 0x33ff], [0x4e00, 0x9fff], [0xa000, 0xabff], [0xac00, 0xd7ff], [0xe000, 0xe0ff],
  [0xf900, 0xfaff], [0xfb00, 0xfdff], [0xfe00, 0xffff], [0x10000, 0x107ff], [0x10800, 0x11fff], [0x12000, 0x1afff],
  [0x1b000, 0x1bfff], [0x1d000, 0x1dfff], [0x1e000, 0x1efff], [0x1f000, 0x1f9ff], [0x20000, 0x2a6df],
  [0x2f800, 0x2fa1f], [0xe0000, 0xe01ef], [0x0, 0x10ffff],
];
const spaces = [' ', '  ', '   ', '\n', '\n\n', '\r\n', '\t', ' \n', '\n ', '\u00a0', '\u2009', '\u3000', '\u2028',
  '\u0085', '\u180e', '\u200b', '\ufeff', '\v', '\f', ' \t ', '\r'];
const words = ['the', 'The', 'THE', 'hello', 'world', "it's", "I'LL", "we've", "don't", "'re", "\u2019s", 'Ünïcödé', 'naïve',
  'camelCase', 'snake_case', 'HTTPServer', 'x86_64', 'foo(bar)', '=>', '!=', '...', '--', '/* c */', '// c', '#include',
  'http://a.b/c?d=e&f', 'a@b.c', '3.14', '1,000', '12345678', '\u0661\u0662', '\u00b2\u00bd', '<', '>', '</s>', '<s>',
  '[', ']', '[MASK]', '</w>', '##ing', '\u2581', '\u2581a', '\u0120', '<0x41>', '<unk>', '\u{1f600}', '\u{1f468}\u200d\u{1f469}\u200d\u{1f467}',
  '\u{1f44d}\u{1f3fd}', '\u{1f1e9}\u{1f1ea}', '\u2764\ufe0f', 'e\u0301', 'a\u0308\u0323', '\ufb01', '\u212b', '\uac00', '\u1100\u1161\u11a8',
  '\u0130', '\u1e9e', '\u03a3', '\u017f', '\u212a', "'\u017f", '漢字', 'かな', 'カナ', '한국어', 'ไทย', 'العربية', 'עברית',
  'हिन्दी', 'русский', 'ελληνικά', '\0', '\x01', '\x7f', '\u0090', '\ufffd', '\uffff'];

function codePoint(next, [low, high]) {
  for (;;) {
    const c = low + Math.floor(next() * (high - low + 1));
    if (c < 0xd800 || c > 0xdfff) return String.fromCodePoint(c);
  }
}

// `pieces`: contents of added tokens and some of the vocabulary
export function* strings(seed, count, pieces) {
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  for (let i = 0; i < count; i++) {
    let s = '';
    const range = pick(ranges);
    for (let n = Math.floor(next() * next() * 24) + 1; n > 0; n--) {
      const kind = next();
      if (kind < 0.2) s += pick(spaces);
      else if (kind < 0.45) s += pick(words);
      else if (kind < 0.6) s += pick(pieces);
      else if (kind < 0.65) { const p = [...pick(pieces)]; s += p.slice(Math.floor(next() * p.length)).join(''); }
      else if (kind < 0.7) s += pick(spaces).repeat(Math.floor(next() * 8));
      else if (kind < 0.9) for (let k = Math.floor(next() * 6) + 1; k > 0; k--) s += codePoint(next, range);
      else if (kind < 0.97) s += codePoint(next, pick(ranges));
      else s += codePoint(next, [0x21, 0x7e]).repeat(Math.floor(next() * 40));
    }
    yield s.toWellFormed ? s.toWellFormed() : s;
  }
}
