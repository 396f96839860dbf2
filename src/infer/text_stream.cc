#include "infer/text_stream.h"

#include <utility>

namespace pmetal::infer {

StopMatcher::StopMatcher(std::span<const std::string> stops) : nodes_(1) {
  for (size_t i = 0; i < stops.size(); ++i) {
    lengths_.push_back(stops[i].size());
    int32_t node = 0;
    for (char c : stops[i]) {
      const auto byte = static_cast<unsigned char>(c);
      int32_t to = child(node, byte);
      if (to < 0) {
        to = static_cast<int32_t>(nodes_.size());
        nodes_[static_cast<size_t>(node)].next.emplace_back(byte, to);
        nodes_.push_back({{}, 0, nodes_[static_cast<size_t>(node)].depth + 1, -1});
      }
      node = to;
    }
    if (node != 0) nodes_[static_cast<size_t>(node)].stop = static_cast<int32_t>(i);
  }
  // breadth first: a node's failure is shallower, so it is complete when it is asked
  std::vector<int32_t> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    const int32_t from = order[i];
    for (const auto& [byte, to] : nodes_[static_cast<size_t>(from)].next) {
      Node& node = nodes_[static_cast<size_t>(to)];
      node.failure = from == 0 ? 0 : step(nodes_[static_cast<size_t>(from)].failure, byte);
      if (node.stop < 0) node.stop = nodes_[static_cast<size_t>(node.failure)].stop;
      order.push_back(to);
    }
  }
}

int32_t StopMatcher::child(int32_t node, unsigned char byte) const {
  for (const auto& [b, to] : nodes_[static_cast<size_t>(node)].next)
    if (b == byte) return to;
  return -1;
}

int32_t StopMatcher::step(int32_t node, unsigned char byte) const {
  for (;;) {
    if (const int32_t to = child(node, byte); to >= 0) return to;
    if (node == 0) return 0;
    node = nodes_[static_cast<size_t>(node)].failure;
  }
}

std::string StopMatcher::push(std::string_view text) {
  if (match_) return {};
  for (char c : text) {
    held_ += c;
    at_ = step(at_, static_cast<unsigned char>(c));
    if (const int32_t stop = nodes_[static_cast<size_t>(at_)].stop; stop >= 0) {
      match_ = static_cast<size_t>(stop);
      held_.resize(held_.size() - lengths_[*match_]);
      return std::move(held_);
    }
  }
  const size_t certain = held_.size() - static_cast<size_t>(nodes_[static_cast<size_t>(at_)].depth);
  std::string out = held_.substr(0, certain);
  held_.erase(0, certain);
  return out;
}

std::string StopMatcher::flush() {
  at_ = 0;
  return match_ ? std::string() : std::exchange(held_, {});
}

TextStream::TextStream(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                       std::span<const std::string> stops, bool skip_special)
    : decoder_(tokenizer, skip_special), matcher_(stops) {
  for (int32_t id : prompt) decoder_.push(id);
}

std::string TextStream::push(int32_t id, bool may_stop) {
  const std::string text = decoder_.push(id);
  return may_stop ? matcher_.push(text) : text;
}

std::string TextStream::flush() {
  std::string out = matcher_.push(decoder_.flush());
  return out + matcher_.flush();
}

}  // namespace pmetal::infer
