#include "app/cli/chart.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

namespace pmetal::app {
namespace {

constexpr int kDotColumns = 2, kDotRows = 4;
// Unicode braille: which bit of U+2800 + bits is the dot at [row][column]
constexpr unsigned char kDotBit[kDotRows][kDotColumns] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};

std::string braille(unsigned char bits) {
  const unsigned code = 0x2800u + bits;
  return {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
          static_cast<char>(0x80 | (code & 0x3F))};
}

}  // namespace

std::string braille_chart(std::string_view title, std::span<const ChartPoint> points, int columns, int rows) {
  std::vector<ChartPoint> finite;
  for (const ChartPoint& p : points)
    if (std::isfinite(p.x) && std::isfinite(p.y)) finite.push_back(p);
  if (finite.size() < 2 || columns < 4 || rows < 1) return {};
  const auto [left, right] =
      std::minmax_element(finite.begin(), finite.end(), [](auto& a, auto& b) { return a.x < b.x; });
  const double x_min = left->x, x_max = right->x;
  const int width = columns * kDotColumns, height = rows * kDotRows;
  const auto dot_column = [&](double x) {
    return x_max > x_min ? static_cast<int>(std::lround((x - x_min) / (x_max - x_min) * (width - 1))) : 0;
  };

  std::vector<double> sum(width, 0), count(width, 0);
  for (const ChartPoint& p : finite) sum[dot_column(p.x)] += p.y, count[dot_column(p.x)] += 1;
  double y_min = INFINITY, y_max = -INFINITY;
  for (int c = 0; c < width; ++c)
    if (count[c] > 0) y_min = std::min(y_min, sum[c] / count[c]), y_max = std::max(y_max, sum[c] / count[c]);
  const double y_range = y_max > y_min ? y_max - y_min : 1;

  std::vector<unsigned char> cells(static_cast<size_t>(columns) * rows, 0);
  const auto set_dot = [&](int column, int row) {
    cells[static_cast<size_t>(row / kDotRows) * columns + column / kDotColumns] |=
        kDotBit[row % kDotRows][column % kDotColumns];
  };
  int last_column = -1, last_row = 0;
  for (int c = 0; c < width; ++c) {
    if (count[c] == 0) continue;
    const int row = static_cast<int>(std::lround((y_max - sum[c] / count[c]) / y_range * (height - 1)));
    // from the last point to this one, a dot per column and the rows between
    const int from_column = last_column < 0 ? c : last_column, from_row = last_column < 0 ? row : last_row;
    for (int k = from_column; k <= c; ++k) {
      const auto row_at = [&](int column) {
        return c == from_column ? row : from_row + (row - from_row) * (column - from_column) / (c - from_column);
      };
      const int a = row_at(std::max(from_column, k - 1)), b = row_at(k);
      for (int r = std::min(a, b); r <= std::max(a, b); ++r) set_dot(k, r);
    }
    last_column = c;
    last_row = row;
  }

  const std::string top = fmt::format("{:.4g}", y_max), bottom = fmt::format("{:.4g}", y_min);
  const size_t margin = std::max(top.size(), bottom.size());
  std::string text = fmt::format("{:>{}}  {}\n", "", margin, title);
  for (int r = 0; r < rows; ++r) {
    const std::string_view label = r == 0 ? std::string_view(top) : r == rows - 1 ? std::string_view(bottom) : "";
    text += fmt::format("{:>{}} ┤", label, margin);
    for (int c = 0; c < columns; ++c) text += braille(cells[static_cast<size_t>(r) * columns + c]);
    text += "\n";
  }
  const std::string first = fmt::format("{:g}", x_min), last = fmt::format("{:g}", x_max);
  const int gap = std::max(1, columns - static_cast<int>(first.size() + last.size()));
  text += fmt::format("{:>{}}  {}{:>{}}{}\n", "", margin, first, "", gap, last);
  return text;
}

}  // namespace pmetal::app
