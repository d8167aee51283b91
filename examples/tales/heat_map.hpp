#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <graft/core/error.hpp>
#include <string>
#include <vector>

#include "table.hpp"

namespace tales {

/// A matrix of positive figures with names.
struct HeatMap {
  std::string title;
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;  ///< of each row
};

namespace detail {
inline std::string xml(const std::string& text) {
  std::string all;
  for (const char c : text) all += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return all;
}
}  // namespace detail

/// An SVG whose cells are the darker the smaller their figure, by its logarithm, compared with its column.
inline std::string svg(const HeatMap& map) {
  constexpr int left = 150, top = 70, width = 130, height = 44, margin = 20;
  const int columns = int(map.columns.size()), rows = int(map.rows.size());
  const auto number = [](int value) { return std::to_string(value); };
  std::string all = "<svg xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"15\" width=\"" +
                    number(std::max(left + columns * width, 500) + margin) + "\" height=\"" +
                    number(top + rows * height + margin) + "\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  const auto text = [&](int x, int y, const char* anchor, const char* colour, const std::string& what) {
    all += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor + "\" fill=\"" + colour + "\">" +
           detail::xml(what) + "</text>\n";
  };
  text(margin, 28, "start", "black", map.title);
  for (int c = 0; c < columns; ++c) {
    text(left + c * width + width / 2, top - 10, "middle", "black", map.columns[std::size_t(c)]);
    double least = 0, most = 0;
    for (int r = 0; r < rows; ++r) {
      const double value = std::log(map.values[std::size_t(r)][std::size_t(c)]);
      least = r == 0 ? value : std::min(least, value);
      most = r == 0 ? value : std::max(most, value);
    }
    for (int r = 0; r < rows; ++r) {
      const double value = map.values[std::size_t(r)][std::size_t(c)];
      const double light = most > least ? (std::log(value) - least) / (most - least) : 0;
      const auto mix = [&](int dark, int bright) { return int(std::lround(dark + (bright - dark) * light)); };
      char colour[8];
      std::snprintf(colour, sizeof colour, "#%02x%02x%02x", unsigned(mix(0x1b, 0xf3)), unsigned(mix(0x4f, 0xf6)), unsigned(mix(0x72, 0xe8)));
      all += "<rect x=\"" + number(left + c * width) + "\" y=\"" + number(top + r * height) + "\" width=\"" + number(width - 3) +
             "\" height=\"" + number(height - 3) + "\" rx=\"4\" fill=\"" + colour + "\"/>\n";
      text(left + c * width + width / 2, top + r * height + 27, "middle", light < 0.5 ? "white" : "black", format("%.2f", value));
    }
  }
  for (int r = 0; r < rows; ++r) text(left - 12, top + r * height + 27, "end", "black", map.rows[std::size_t(r)]);
  return all + "</svg>\n";
}

/// @throws graft::FileError when it cannot be written.
inline void write_svg(const std::filesystem::path& path, const HeatMap& map) {
  std::ofstream file(path, std::ios::binary);
  file << svg(map);
  if (!file.flush())
    graft::fail<graft::FileError>("cannot write " + path.string(), "the folder is missing or refuses", "name another file with --svg");
}

}  // namespace tales
