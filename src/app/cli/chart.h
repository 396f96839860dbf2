// A line chart of dots made of braille characters, for the terminal.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace pmetal::app {

struct ChartPoint {
  double x, y;
};

// `columns` x `rows` characters of plot (each 2 x 4 dots), with the y range at the left and the x range below. Points
// that fall into one dot column are averaged; points that are not finite are left out. Empty without two points.
std::string braille_chart(std::string_view title, std::span<const ChartPoint> points, int columns, int rows);

}  // namespace pmetal::app
