#include "text/tokenizer/normalized.h"

namespace pmetal::text {

Rewriter::Rewriter(const Normalized& in, Arena& arena) : in_(in), arena_(arena) {
  text_.reserve(in.text.size() + 8);
  if (arena.track_origin()) origins_.reserve(in.text.size() + 8);
}

void Rewriter::skip(size_t n_chars) {
  for (; n_chars > 0 && at_ < in_.text.size(); --n_chars) at_ += utf8_length(static_cast<unsigned char>(in_.text[at_]));
}

void Rewriter::put(uint32_t c, int change) {
  const size_t size_before = text_.size();
  append_utf8(text_, c);
  if (arena_.track_origin()) {
    Range origin{in_.begin, in_.begin};
    const size_t size = in_.text.size();
    if (change > 0) {
      if (at_ > 0) origin = in_.origin(at_ - 1);
    } else if (size > 0) {
      origin = in_.origin(at_ < size ? at_ : size - 1);
    }
    origins_.insert(origins_.end(), text_.size() - size_before, origin);
  }
  if (change <= 0) skip(1 + static_cast<size_t>(-change));
}

void Rewriter::copy_until(size_t to) {
  text_.append(in_.text, at_, to - at_);
  if (arena_.track_origin()) {
    if (in_.origins) {
      origins_.insert(origins_.end(), in_.origins + at_, in_.origins + to);
    } else {
      for (size_t at = at_; at < to;) {
        const auto n = static_cast<size_t>(utf8_length(static_cast<unsigned char>(in_.text[at])));
        const auto first = static_cast<uint32_t>(in_.begin + at);
        origins_.insert(origins_.end(), n, Range{first, static_cast<uint32_t>(first + n)});
        at += n;
      }
    }
  }
  at_ = to;
}

Normalized Rewriter::finish() {
  Normalized out;
  out.begin = in_.begin;
  out.text = arena_.keep(std::move(text_));
  if (arena_.track_origin()) out.origins = arena_.keep(std::move(origins_));
  return out;
}

}  // namespace pmetal::text
