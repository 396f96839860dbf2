#include "base/nearest.h"

#include <gtest/gtest.h>

namespace pmetal {
namespace {

TEST(Nearest, Edit_distance_counts_insertions_deletions_replacements_and_swaps) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);  // the textbook pair
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("lora_r", "lora_r"), 0);
  EXPECT_EQ(edit_distance("epcohs", "epochs"), 1);
  EXPECT_EQ(edit_distance("lora-r", "lora_r"), 0);
}

TEST(Nearest, The_closest_name_wins_and_far_words_get_no_suggestion) {
  const std::string_view names[] = {"lora_r", "lora_alpha", "learning_rate", "epochs"};
  EXPECT_EQ(nearest_name("lora_alhpa", names), "lora_alpha");
  EXPECT_EQ(nearest_name("learning_rat", names), "learning_rate");
  EXPECT_EQ(nearest_name("zzzzzzzzzz", names), "");
  EXPECT_EQ(nearest_name("", {}), "");
  EXPECT_EQ(did_you_mean("epoch", names), "; did you mean \"epochs\"?");
}

}  // namespace
}  // namespace pmetal
