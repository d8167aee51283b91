#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "harness.hpp"

namespace paired {

enum class Bound { at_most, at_least };

/// A figure that is held against a goal.
struct Gate {
  std::string goal;     ///< of docs/benchmarks.md: "2", "PEFT merge"
  std::string what;     ///< "ours / Eigen"
  Bound bound = Bound::at_most;
  double target = 0;
  Series value{};       ///< unmeasured: `reason` says why
  std::string reason{};
  std::string unit{};   ///< empty for ratios
};

/// Something that was measured beside ours.
struct Beside {
  std::string name;
  Series seconds{};
  std::string reason{};  ///< when it was not measured
};

/// A line of an area's table: what was measured, and the gates on it. A row is always printed.
struct Row {
  std::string name;
  Series ours{};
  std::string reason{};  ///< when ours was not measured
  std::optional<double> limit{};
  std::string limit_of{};  ///< what the limit is
  std::vector<Beside> beside{};
  std::vector<Gate> gates{};
  std::string note{};
};

/// Writes one JSON object a line; the tables are made from these.
class Report {
 public:
  void area(std::string name, std::string title) {
    area_ = std::move(name);
    print({{"kind", "area"}, {"area", area_}, {"title", title}});
  }
  void machine(const nlohmann::json& facts) { print({{"kind", "machine"}, {"facts", facts}}); }
  void note(const std::string& text) { print({{"kind", "note"}, {"area", area_}, {"text", text}}); }

  void row(const Row& row) {
    nlohmann::json line{{"kind", "row"}, {"area", area_}, {"name", row.name}, {"ours", summary(row.ours, row.reason)}};
    if (row.limit) line["limit"] = {{"seconds", *row.limit}, {"of", row.limit_of}};
    if (!row.note.empty()) line["note"] = row.note;
    for (const Beside& beside : row.beside) {
      nlohmann::json entry = summary(beside.seconds, beside.reason);
      entry["name"] = beside.name;
      entry["ratio"] = summary(row.ours / beside.seconds, "");
      line["beside"].push_back(entry);
    }
    for (const Gate& gate : row.gates) {
      nlohmann::json entry = summary(gate.value, gate.reason);
      entry["goal"] = gate.goal;
      entry["what"] = gate.what;
      entry["unit"] = gate.unit;
      entry["bound"] = gate.bound == Bound::at_most ? "at most" : "at least";
      entry["target"] = gate.target;
      if (gate.value.measured()) {
        const double median = gate.value.median();
        entry["holds"] = gate.bound == Bound::at_most ? median <= gate.target : median >= gate.target;
      }
      line["gates"].push_back(entry);
    }
    print(line);
  }

 private:
  static nlohmann::json summary(const Series& series, const std::string& reason) {
    if (!series.measured()) return {{"not_measured", reason.empty() ? "not measured" : reason}};
    return {{"min", series.min()}, {"median", series.median()}, {"max", series.max()}, {"rounds", series.size()}};
  }
  static void print(const nlohmann::json& line) {
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }

  std::string area_;
};

}  // namespace paired
