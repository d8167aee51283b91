#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace tales {

/// Lines of cells: the first column flush left, the others flush right.
class Table {
 public:
  void add(std::vector<std::string> line) { lines_.push_back(std::move(line)); }

  [[nodiscard]] std::string text() const {
    std::vector<std::size_t> widths;
    for (const auto& line : lines_) {
      widths.resize(std::max(widths.size(), line.size()));
      for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    }
    std::string all;
    for (const auto& line : lines_) {
      std::string text = " ";
      for (std::size_t i = 0; i < line.size(); ++i) {
        const std::string blanks(widths[i] - line[i].size(), ' ');
        text += i == 0 ? " " + line[i] + blanks : "   " + blanks + line[i];
      }
      all += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
    }
    return all;
  }

 private:
  std::vector<std::vector<std::string>> lines_;
};

inline std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

/// 54272 as "54,272".
inline std::string grouped(std::size_t number) {
  std::string text = std::to_string(number);
  for (std::size_t place = text.size(); place > 3;) text.insert(place -= 3, 1, ',');
  return text;
}

}  // namespace tales
