// Short stories from a grammar: somebody wants, looks for, loses, finds or gives a thing, with a helper, a place and a
// feeling that fits. Names carry their pronouns, so every sentence is grammatical and later ones agree with earlier.
#include <fmt/format.h>

#include <array>

#include "data/synthetic_parts.h"

namespace pmetal::data::synthetic {
namespace {

struct Person {
  std::string_view name, he, him, his;
};
constexpr std::array<Person, 12> kPeople = {{{"Anna", "she", "her", "her"},
                                             {"Ben", "he", "him", "his"},
                                             {"Clara", "she", "her", "her"},
                                             {"David", "he", "him", "his"},
                                             {"Emma", "she", "her", "her"},
                                             {"Felix", "he", "him", "his"},
                                             {"Grace", "she", "her", "her"},
                                             {"Leo", "he", "him", "his"},
                                             {"Mia", "she", "her", "her"},
                                             {"Oscar", "he", "him", "his"},
                                             {"Ruth", "she", "her", "her"},
                                             {"Tom", "he", "him", "his"}}};
constexpr std::array<std::string_view, 16> kThings = {"key",  "ball", "hat",  "book", "kite", "cup",  "map",  "coin",
                                                      "bell", "boat", "lamp", "drum", "rope", "ring", "coat", "box"};
constexpr std::array<std::string_view, 8> kColours = {"red",   "blue",  "green", "yellow",
                                                      "white", "black", "brown", "grey"};
constexpr std::array<std::string_view, 10> kPlaces = {"garden", "kitchen", "forest", "market",  "school",
                                                      "river",  "barn",    "park",   "library", "harbour"};
constexpr std::array<std::string_view, 8> kHiding = {"under the table",   "behind the door", "in the tall grass",
                                                     "near the old wall", "on the stairs",   "under the bridge",
                                                     "beside the well",   "in a basket"};
constexpr std::array<std::string_view, 6> kTimes = {"One morning",   "One evening",    "Last week",
                                                    "On a cold day", "On a sunny day", "Before lunch"};
constexpr std::array<std::string_view, 6> kGlad = {"very happy",  "glad",    "proud",
                                                   "full of joy", "pleased", "calm again"};
constexpr std::array<std::string_view, 6> kSad = {"sad", "worried", "upset", "tired", "a little afraid", "angry"};
constexpr std::array<std::string_view, 6> kEndings = {
    "They walked home together.", "After that they shared some bread.", "They laughed until the sun went down.",
    "It was a good day.",         "They promised to meet again.",       "Then it was time for supper."};

std::string upper(std::string_view word) {
  std::string out(word);
  out[0] = static_cast<char>(out[0] - 'a' + 'A');
  return out;
}

}  // namespace

Story make_story(PhiloxStream& random) {
  const size_t first = random.below(kPeople.size());
  const size_t second = (first + 1 + random.below(kPeople.size() - 1)) % kPeople.size();
  const Person &a = kPeople[first], &b = kPeople[second];
  const std::string thing = fmt::format("{} {}", pick(random, kColours), pick(random, kThings));
  const std::string_view place = pick(random, kPlaces), spot = pick(random, kHiding);
  Story story;
  const std::string opening =
      fmt::format("{} {} went to the {} with {} friend {}.", pick(random, kTimes), a.name, place, a.his, b.name);
  std::string_view finder = b.name;
  switch (random.below(4)) {
    case 0:
      story.text =
          fmt::format("{} {} lost {} {} there. {} was {}. {} looked everywhere, and at last {} found it {}. {} was {}.",
                      opening, upper(a.he), a.his, thing, upper(a.he), pick(random, kSad), a.name, b.name, spot, a.name,
                      pick(random, kGlad));
      break;
    case 1:
      finder = a.name;
      story.text = fmt::format(
          "{} There {} saw something {}. It was a {}. {} asked, \"Is this yours?\" \"No,\" said {}, \"but it is "
          "nice.\" So {} kept it, and {} was {}.",
          opening, a.name, spot, thing, upper(a.he), b.name, a.name, a.he, pick(random, kGlad));
      break;
    case 2:
      story.text = fmt::format(
          "{} {} wanted a {}, but {} had no money. {} was {}. Then {} found one {} and gave it to {}. \"Thank you,\" "
          "said {}. {} was {}.",
          opening, a.name, thing, a.he, upper(a.he), pick(random, kSad), b.name, spot, a.him, a.name, upper(a.he),
          pick(random, kGlad));
      break;
    default:
      story.text = fmt::format(
          "{} It began to rain, so they ran inside. {} had left {} {} outside. {} went back and found it {}. {} "
          "thanked {} and was {}.",
          opening, a.name, a.his, thing, b.name, spot, a.name, b.him, pick(random, kGlad));
  }
  story.text += fmt::format(" {}", pick(random, kEndings));
  switch (random.below(4)) {
    case 0:
      story.question = fmt::format("Who found the {}?", thing);
      story.answer = std::string(finder);
      break;
    case 1:
      story.question = fmt::format("Where was the {}?", thing);
      story.answer = std::string(spot);
      break;
    case 2:
      story.question = fmt::format("Where did {} go?", a.name);
      story.answer = fmt::format("to the {}", place);
      break;
    default: story.question = fmt::format("Who was with {}?", a.name); story.answer = std::string(b.name);
  }
  return story;
}

}  // namespace pmetal::data::synthetic
