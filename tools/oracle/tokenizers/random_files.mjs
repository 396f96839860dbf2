// randomFile(seed): a tokenizer.json of random parts: normalizers, pre-tokenizers, models, post-processors, decoders,
// added tokens, truncation and padding, in combinations that nobody trained.
import { random } from './strings.mjs';

const byteAlphabet = (() => {
  const chars = [];
  let extra = 0x100;
  for (let b = 0; b < 256; b++) {
    const printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    chars.push(String.fromCodePoint(printable ? b : extra++));
  }
  return chars;
})();
const plainAlphabet = [...'abcdefghijklmnopqrstuvwxyzABCDEHILMNORSTW0123456789 .,!?\'"()-_/<>\u2581\n', 'é', 'ü', 'ß', '漢', '字', 'か', 'ا', 'ن',
  '\u0301', '한', '😀', 'ї', 'İ', 'Σ'];
const patterns = ['\\s+', '\\s', ' ', '[0-9]+', '\\d{1,3}', '\\p{L}+', '[^\\p{L}\\p{N}\\s]+', '\\w+|[^\\w\\s]+', "'s|'t|'re", '\\p{Lu}\\p{Ll}*', 'a*',
  '(?<=\\p{L})(?=\\p{N})', '^\\s+', '\\s+$', '(?i:the)', '\\s+(?!\\S)|\\s+', '[\\r\\n]+', '.', '\\p{Han}', '(?:ab|a)b?', '\\b\\w', '$', 'e\\u0301?', '[\\u4e00-\\u9fa5]+',
  '\\d{1,3}+', 'a{,2}b', '[[:alpha:]]+', '[[:punct:]]', '[^[:space:]]+', '[a-z&&[^aeiou]]+', '[^\\W\\d_]+', '\\p{Mn}', '\\bthe\\b', '\\B.', '[\\P{L}]+', '\\p{Alnum}+',
  '\\v|\\t', '(?>a+)b', '(a)\\1', '\\A\\s', '\\s*\\z', ' ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*', '[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+'];

export function randomFile(seed) {
  const next = random(seed * 7919 + 1);
  const below = (n) => Math.floor(next() * n);
  const pick = (list) => list[below(list.length)];
  const flip = (p = 0.5) => next() < p;
  const some = (low, high, make) => Array.from({ length: low + below(high - low + 1) }, make);

  const pattern = () => flip(0.4) ? { String: pick([' ', '\u2581', 'a', 'th', '  ', '\n', '.', 'é', '--']) } : { Regex: pick(patterns) };
  const schemes = ['first', 'never', 'always'];
  const metaspace = () => ({ type: 'Metaspace', replacement: pick(['\u2581', '\u2581', '_']), prepend_scheme: pick(schemes), split: flip() });
  const byteLevel = (regex = flip()) => ({ type: 'ByteLevel', add_prefix_space: flip(), trim_offsets: flip(), use_regex: regex });
  const behavior = () => pick(['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']);

  const normalizer = (depth = 0) => pick([
    () => ({ type: 'NFC' }), () => ({ type: 'NFD' }), () => ({ type: 'NFKC' }), () => ({ type: 'NFKD' }), () => ({ type: 'Lowercase' }),
    () => ({ type: 'StripAccents' }), () => ({ type: 'Nmt' }), () => ({ type: 'Strip', strip_left: flip(), strip_right: flip() }),
    () => ({ type: 'Replace', pattern: pattern(), content: pick(['', ' ', '\u2581', 'x', 'é', 'ab ']) }),
    () => ({ type: 'Prepend', prepend: pick(['\u2581', ' ', 'ab', 'é']) }),
    () => ({ type: 'BertNormalizer', clean_text: flip(), handle_chinese_chars: flip(), strip_accents: pick([true, false, null]), lowercase: flip() }),
    () => ({ type: 'ByteLevel' }),
    () => depth < 2 ? { type: 'Sequence', normalizers: some(0, 4, () => normalizer(depth + 1)) } : { type: 'NFC' },
  ])();
  const preTokenizer = (depth = 0) => pick([
    () => byteLevel(), () => ({ type: 'Whitespace' }), () => ({ type: 'WhitespaceSplit' }), () => ({ type: 'BertPreTokenizer' }), metaspace,
    () => ({ type: 'CharDelimiterSplit', delimiter: pick([' ', 'a', '\u2581']) }), () => ({ type: 'Punctuation', behavior: behavior() }),
    () => ({ type: 'Digits', individual_digits: flip() }), () => ({ type: 'UnicodeScripts' }),
    () => ({ type: 'Split', pattern: pattern(), behavior: behavior(), invert: flip(0.3) }),
    () => ({ type: 'Split', pattern: pattern(), behavior: behavior(), invert: flip(0.3) }),
    () => ({ type: 'FixedLength', length: 1 + below(6) }),
    () => depth < 2 ? { type: 'Sequence', pretokenizers: some(0, 3, () => preTokenizer(depth + 1)) } : { type: 'Whitespace' },
  ])();
  const decoder = (depth = 0) => pick([
    () => byteLevel(), metaspace, () => ({ type: 'WordPiece', prefix: pick(['##', '@@']), cleanup: flip() }),
    () => ({ type: 'BPEDecoder', suffix: pick(['</w>', '@@']) }), () => ({ type: 'ByteFallback' }), () => ({ type: 'Fuse' }),
    () => ({ type: 'Strip', content: pick([' ', 'a', '\u2581']), start: below(3), stop: 0 }),
    () => ({ type: 'Replace', pattern: pattern(), content: pick(['', ' ', 'x', '\u2581']) }),
    () => ({ type: 'CTC', pad_token: '<pad>', word_delimiter_token: '|', cleanup: flip() }),
    () => depth < 2 ? { type: 'Sequence', decoders: some(0, 4, () => decoder(depth + 1)) } : { type: 'Fuse' },
  ])();

  // ---- the model
  const vocab = {};
  const add = (token) => { if (!(token in vocab)) vocab[token] = Object.keys(vocab).length; return token; };
  const specials = ['<unk>', '<s>', '</s>', '<pad>'];
  specials.forEach(add);
  const bytesInVocab = flip(0.4);
  const addBytes = () => { for (let b = 0; b < 256; b++) if (bytesInVocab || flip(0.02)) add(`<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`); };
  const kind = pick(['bytes', 'bytes', 'bpe', 'bpe', 'bpe', 'unigram', 'unigram', 'wordpiece', 'wordlevel']);
  let model;
  if (kind === 'bytes' || kind === 'bpe') {
    const isBytes = kind === 'bytes';
    const prefix = !isBytes && flip(0.25) ? '##' : pick([null, null, '']), suffix = flip(0.25) ? '</w>' : pick([null, null, '']);
    const alphabet = isBytes ? byteAlphabet : plainAlphabet.filter(() => flip(0.9));
    const fallback = !isBytes && flip();
    if (fallback) addBytes();
    for (const c of alphabet) {
      add(c);
      if (prefix) add(prefix + c);
      if (suffix) add(c + suffix);
      if (prefix && suffix) add(prefix + c + suffix);
    }
    const tokens = Object.keys(vocab).filter((t) => !specials.includes(t) && !t.startsWith('<0x'));
    const merges = [];
    const seen = new Set();
    const common = isBytes ? [...'etaoinsrhl', 'Ġ', 'Ġ', 'Ã', '©', 'Ċ'] : [...'etaoinsrhl \u2581'];
    for (let i = 0; i < 400; i++) {
      const a = flip(0.5) ? pick(common) : pick(tokens);
      let b = flip(0.4) ? pick(common) : pick(tokens);
      if (prefix && !b.startsWith(prefix)) b = prefix + b;
      if (!(a in vocab) || !(b in vocab) || (suffix && a.endsWith(suffix)) || seen.has(a + '\0' + b)) continue;
      if (a.length + b.length > 12 || /\s/.test(a + b) && flip(0.3)) continue;
      seen.add(a + '\0' + b);
      const joined = a + (prefix ? b.slice(prefix.length) : b);
      if (!(joined in vocab)) tokens.push(joined);
      add(joined);
      merges.push([a, b]);
    }
    if (flip(0.3)) for (const word of ['the', 'hello', 'world', 'Ġthe', '\u2581the', 'camelCase']) add(word);
    model = { type: 'BPE', dropout: pick([null, null, 0]), unk_token: pick([null, '<unk>']), continuing_subword_prefix: prefix, end_of_word_suffix: suffix,
      fuse_unk: flip(), byte_fallback: fallback, ignore_merges: flip(0.3), vocab,
      merges: flip(0.3) && !merges.some(([a, b]) => / /.test(a + b)) ? merges.map(([a, b]) => `${a} ${b}`) : merges };
  } else if (kind === 'unigram') {
    const fallback = flip();
    if (fallback) addBytes();
    for (const c of plainAlphabet) if (flip(0.95)) add(c);
    const tokens = Object.keys(vocab).filter((t) => !specials.includes(t) && !t.startsWith('<0x'));
    for (let i = 0; i < 400; i++) {
      const joined = pick(tokens) + pick(tokens);
      if (joined.length <= 10) tokens.push(add(joined));
    }
    const scale = pick([1, 3, 10]);
    model = { type: 'Unigram', unk_id: 0, vocab: Object.keys(vocab).map((t) => [t, specials.includes(t) ? 0 : -(Math.round(next() * 1000) / 100) * scale]), byte_fallback: fallback };
  } else if (kind === 'wordpiece') {
    const prefix = pick(['##', '##', '@@', '']);
    for (const c of plainAlphabet) { if (flip(0.95)) add(c); if (flip(0.95)) add(prefix + c); }
    for (let i = 0; i < 300; i++) add((flip() ? prefix : '') + some(2, 4, () => pick(plainAlphabet)).join(''));
    model = { type: 'WordPiece', unk_token: '<unk>', continuing_subword_prefix: prefix, max_input_chars_per_word: pick([100, 5, 12]), vocab };
  } else {
    for (const word of ['the', 'The', 'hello', 'world', 'a', ' ', '.', '...', 'it', "'", 's', '漢字', '\u2581the', '3', '14']) add(word);
    model = { type: 'WordLevel', vocab, unk_token: '<unk>' };
  }

  // ---- added tokens
  const size = Object.keys(vocab).length;
  const added = specials.map((content, id) => ({ id, content, single_word: false, lstrip: flip(0.2), rstrip: flip(0.2), normalized: flip(0.2), special: true }));
  const contents = ['<a>', '<a><b>', '<b>', 'the', 'The', ' world', 'ab', 'abc', 'É', 'ﬁ', '\n\n', '  ', '    ', '<|x|>', '漢', '😀', '\u2581', "don't", '.'];
  let id = size;
  for (const content of contents.filter(() => flip(0.25)))
    added.push({ id: content in vocab ? vocab[content] : id++, content, single_word: flip(0.3), lstrip: flip(0.3), rstrip: flip(0.3), normalized: flip(), special: flip(0.3) });

  // ---- around it
  const special = (content, type) => ({ SpecialToken: { id: content, type_id: type } });
  const sequence = (name, type) => ({ Sequence: { id: name, type_id: type } });
  const around = (list) => list.flatMap((x) => [...(flip(0.4) ? [special(pick(['<s>', '</s>']), below(2))] : []), x, ...(flip(0.4) ? [special('</s>', below(3))] : [])]);
  const post = (depth = 0) => pick([
    () => null, () => ({ type: 'ByteLevel', add_prefix_space: flip(), trim_offsets: flip(), use_regex: flip() }),
    () => ({ type: 'BertProcessing', sep: ['</s>', 2], cls: ['<s>', 1] }),
    () => ({ type: 'RobertaProcessing', sep: ['</s>', 2], cls: ['<s>', 1], trim_offsets: flip(), add_prefix_space: flip() }),
    () => ({ type: 'TemplateProcessing', single: around([sequence('A', below(2))]),
      pair: flip(0.8) ? around([sequence('A', 0), sequence('B', 1)]) : around([sequence('B', 0), sequence('A', 1)]),
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] }, '</s>': flip(0.8) ? { id: '</s>', ids: [2], tokens: ['</s>'] } : { id: '</s>', ids: [2, 3], tokens: ['</s>', '<pad>'] } } }),
    () => depth < 1 ? { type: 'Sequence', processors: some(1, 2, () => post(1)).filter((p) => p) } : null,
  ])();
  const truncation = flip(0.15) ? { direction: pick(['Left', 'Right']), max_length: 40 + below(30), strategy: pick(['LongestFirst', 'OnlyFirst', 'OnlySecond']), stride: below(3) } : null;
  const padding = flip(0.15) ? { strategy: flip() ? 'BatchLongest' : { Fixed: 5 + below(10) }, direction: pick(['Left', 'Right']), pad_to_multiple_of: pick([null, 4, 8]), pad_id: 3, pad_type_id: below(2), pad_token: '<pad>' } : null;
  const pre = kind === 'bytes' ? (flip(0.7) ? { type: 'Sequence', pretokenizers: [...some(0, 2, () => preTokenizer(1)), byteLevel(flip(0.3))] } : byteLevel()) : flip(0.8) ? preTokenizer() : null;
  return { version: '1.0', truncation, padding, added_tokens: added, normalizer: flip(0.6) ? normalizer() : null, pre_tokenizer: pre, post_processor: post(), decoder: flip(0.8) ? decoder() : null, model };
}
