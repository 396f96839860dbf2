// Small tokenizers, one for each component, and texts that hold every code point of the assigned planes: classes of
// characters, normal forms and case mappings are then compared without gaps.

const alphabet = () => {
  const chars = [];
  let extra = 0x100;
  for (let b = 0; b < 256; b++) {
    const printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    chars.push(String.fromCodePoint(printable ? b : extra++));
  }
  return chars;
};
const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
const byteModel = { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null,
  fuse_unk: false, byte_fallback: false, ignore_merges: false,
  vocab: Object.fromEntries(alphabet().map((c, i) => [c, i])), merges: [] };
const unkModel = { type: 'WordLevel', vocab: { '<unk>': 0 }, unk_token: '<unk>' };
const regex = (Regex, behavior = 'Removed', invert = false) => ({ type: 'Split', pattern: { Regex }, behavior, invert });

const file = (normalizer, pre_tokenizer, model, added_tokens = []) => ({ version: '1.0', truncation: null, padding: null,
  added_tokens, normalizer, pre_tokenizer, post_processor: null, decoder: null, model });

export function components() {
  const out = {};
  for (const type of ['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'StripAccents', 'Nmt']) out[type] = file({ type }, bytes, byteModel);
  for (const lowercase of [true, false])
    for (const strip_accents of [true, false, null])
      out[`Bert_${lowercase}_${strip_accents}`] = file(
        { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, strip_accents, lowercase }, bytes, byteModel);
  out.Strip = file({ type: 'Strip', strip_left: true, strip_right: true }, bytes, byteModel);
  out.Strip_left = file({ type: 'Strip', strip_left: true, strip_right: false }, bytes, byteModel);
  out.Replace = file({ type: 'Replace', pattern: { Regex: '\\s+|\\p{Mn}|[0-9]{2}' }, content: '\u2581x' }, bytes, byteModel);
  out.Prepend = file({ type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '\u2581é' }, { type: 'NFD' }] }, bytes, byteModel);
  for (const type of ['Whitespace', 'WhitespaceSplit', 'BertPreTokenizer', 'UnicodeScripts']) out[type] = file(null, { type }, unkModel);
  for (const behavior of ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']) {
    out[`Punctuation_${behavior}`] = file(null, { type: 'Punctuation', behavior }, unkModel);
    for (const invert of [true, false]) out[`Split_${behavior}_${invert}`] = file(null, regex('\\p{L}+', behavior, invert), unkModel);
  }
  out.Digits = file(null, { type: 'Digits', individual_digits: true }, unkModel);
  out.Digits_runs = file(null, { type: 'Digits', individual_digits: false }, unkModel);
  out.CharDelimiterSplit = file(null, { type: 'CharDelimiterSplit', delimiter: 'a' }, unkModel);
  out.FixedLength = file(null, { type: 'FixedLength', length: 7 }, unkModel);
  for (const prepend_scheme of ['first', 'never', 'always'])
    for (const split of [true, false])
      out[`Metaspace_${prepend_scheme}_${split}`] = file(null, { type: 'Metaspace', replacement: '\u2581', prepend_scheme, split }, unkModel);
  // other scripts follow PCRE2's Unicode version
  const patterns = ['\\s', '\\w', '\\d', '\\S', '\\W', '\\D', '\\h', '.', '(?i:s)', '(?i:k)', "(?i:'s|'t|'re|'ve|'m|'ll|'d)", '\\b\\w', '[[:alpha:]]', '[[:punct:]]', '[[:graph:]]', '[[:lower:]]', '[^\\S\\n]', '[\\w]',
    '[\\p{L}&&[^\\p{Han}]]+'];
  for (const p of ['L', 'Lu', 'Ll', 'Lt', 'Lm', 'Lo', 'M', 'N', 'Nd', 'Nl', 'No', 'P', 'Pc', 'S', 'Sc', 'Sk', 'Z', 'Zs', 'Cc', 'Cf', 'Han',
    'Thai', 'Hangul', 'Greek', 'Latin', 'Cyrillic', 'Arabic', 'Mn', 'Mc', 'Cn', 'C', 'Sm', 'So', 'Po', 'Pd', 'Emoji', 'Ideographic', 'Alphabetic', 'Lowercase', '^L'])
    patterns.push(`\\p{${p}}`);
  patterns.forEach((p) => { out[`Regex ${p}`] = file(null, regex(p), unkModel); });
  const added = (content, flags) => ({ id: 1, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: false, ...flags });
  out.Added_single = file(null, null, unkModel, [added('zq', { single_word: true })]);
  out.Added_strip = file(null, null, unkModel, [added('zq', { lstrip: true, rstrip: true })]);
  return out;
}

export function* everyCodePoint() {
  const all = [];
  for (const [low, high] of [[0, 0xd7ff], [0xe000, 0x3ffff], [0xe0000, 0xe0fff], [0xf0000, 0xf00ff], [0x10ff00, 0x10ffff]])
    for (let c = low; c <= high; c++) all.push(String.fromCodePoint(c));
  for (let i = 0; i < all.length; i += 256) {
    const block = all.slice(i, i + 256);
    yield block.join('');
    yield block.map((c) => `zq${c}`).join('');
    if (i < 0x1e000) yield block.map((c) => `${c}\u0301\u0323 ${c}b`).join('');
  }
}
