// Values that several commands share, so that one word means the same everywhere.
#pragma once

#include <cstdint>
#include <string_view>

#include "jobs/field.h"

namespace pmetal::jobs {

enum class ComputeDtype : uint8_t { kF32, kBF16 };
inline constexpr EnumName kComputeDtypes[] = {
    {"f32", static_cast<int>(ComputeDtype::kF32)},     {"bf16", static_cast<int>(ComputeDtype::kBF16)},
    {"float32", static_cast<int>(ComputeDtype::kF32)}, {"bfloat16", static_cast<int>(ComputeDtype::kBF16)},
    {"fp32", static_cast<int>(ComputeDtype::kF32)},
};

// auto: the first GPU that this build can use, else the CPU. kCuda0 + i is GPU i.
enum class DeviceChoice : uint8_t { kAuto, kCpu, kCuda0 };
inline constexpr EnumName kDeviceChoices[] = {
    {"auto", 0},   {"cpu", 1},    {"cuda", 2},   {"cuda:0", 2}, {"cuda:1", 3}, {"cuda:2", 4},
    {"cuda:3", 5}, {"cuda:4", 6}, {"cuda:5", 7}, {"cuda:6", 8}, {"cuda:7", 9},
};

enum class TrainOn : uint8_t { kLast, kAll, kEverything };
inline constexpr EnumName kTrainOnNames[] = {{"last", static_cast<int>(TrainOn::kLast)},
                                             {"all", static_cast<int>(TrainOn::kAll)},
                                             {"everything", static_cast<int>(TrainOn::kEverything)}};

inline constexpr std::string_view kModelHelp =
    "checkpoint: a folder with config.json and safetensors, a name of the hub, or random:CONFIG.json";
inline constexpr std::string_view kDatasetHelp = "data: a file, a folder that holds one, or a name of the hub";
inline constexpr std::string_view kSplitHelp = "which split of a folder is read";
inline constexpr std::string_view kTextModelHelp = "model folder whose tokenizer and chat template are used";
inline constexpr std::string_view kSampleTokensHelp = "longest sample in tokens";
inline constexpr std::string_view kTrainOnHelp =
    "which turns are learned: the last answer, all answers, or every token";
inline constexpr std::string_view kAdapterHelp = "adapter folder to apply";
inline constexpr std::string_view kDtypeHelp = "type of weights and activations in memory";
inline constexpr std::string_view kDeviceHelp =
    "where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1 ...";
inline constexpr std::string_view kThreadsHelp = "worker threads; 0 = one per core this process may use";
inline constexpr std::string_view kSeedHelp = "seed of every random choice";
inline constexpr std::string_view kTextColumnHelp = "column that holds plain text";
inline constexpr std::string_view kTextColumnsHelp = "columns joined into one text, in this order";
inline constexpr std::string_view kColumnSeparatorHelp = "text between joined columns";
inline constexpr std::string_view kPromptColumnHelp = "column that holds the prompt";
inline constexpr std::string_view kResponseColumnHelp = "column that holds the answer";

}  // namespace pmetal::jobs
