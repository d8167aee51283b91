// Real PEFT wrote every case under tests/data/golden (generate.py); here graft reads them without Python.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include <graft/io.hpp>

#include "case.hpp"

namespace {

namespace fs = std::filesystem;

std::vector<fs::path> golden_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(fs::path(GRAFT_TEST_DATA) / "golden")) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::string bytes_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<double> values_of(const graft::TensorView& view) {
  std::vector<double> values(std::size_t(view.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = graft::element_as<double>(view.dtype, view.data, i);
  return values;
}

/// max|y - expected| / (1 + max|expected|); infinite for other sizes and for NaN.
double distance(const std::vector<double>& y, const std::vector<double>& expected) {
  double largest = 0, off = 0;
  if (y.size() != expected.size() || y.empty()) return INFINITY;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!std::isfinite(y[i])) return INFINITY;
    largest = std::max(largest, std::abs(expected[i]));
    off = std::max(off, std::abs(y[i] - expected[i]));
  }
  return off / (1 + largest);
}

/// A folder of its own that goes with the scope.
struct Scratch {
  fs::path path = fs::temp_directory_path() / ("graft-golden-" + std::to_string(std::uintptr_t(this)));
  Scratch() { fs::create_directories(path); }
  ~Scratch() { fs::remove_all(path); }
};

/// Trees are recorded in f64; the class of a parameter is all that changes with the scalar.
std::string tree_for(std::string tree, graft::Dtype scalar) {
  const std::string recorded = "torch.DoubleTensor", mine = "torch.FloatTensor";
  if (scalar == graft::Dtype::f32)
    for (std::size_t at = 0; (at = tree.find(recorded, at)) != std::string::npos;) tree.replace(at, recorded.size(), mine);
  return tree;
}

/// The text of an adapter_config.json with the lists that are sets in Python sorted; nothing else changes.
std::string with_sorted_sets(const fs::path& file) {
  std::istringstream lines(bytes_of(file));
  std::string text;
  std::vector<std::string> items;
  bool in_set = false;
  for (std::string line; std::getline(lines, line);) {
    if (in_set && line.rfind("  ]", 0) == 0) {
      std::sort(items.begin(), items.end());
      for (const std::string& item : items) text += item + "\n";
      items.clear();
      in_set = false;
    }
    if (in_set) items.push_back(line.back() == ',' ? line.substr(0, line.size() - 1) : line);
    else text += line + "\n";
    for (const std::string field : {"target_modules", "exclude_modules", "feedforward_modules"})
      in_set = in_set || line == "  \"" + field + "\": [";
  }
  return text;
}

/// Whether graft keeps every tensor of that file in the dtype that it has there.
bool keeps_dtypes(const interop::Case& one, const fs::path& file, graft::Dtype scalar) {
  const std::string weights = one.text.at("model").at("dtype");
  const graft::Dtype narrow = weights == "bf16" ? graft::Dtype::bf16 : weights == "f16" ? graft::Dtype::f16 : scalar;
  for (const auto& [key, view] : graft::safetensors::load_file(file)) {
    const bool adapter = key.find(".lora_") != std::string::npos || key.find(".ia3_") != std::string::npos;
    if (view.dtype != (adapter ? scalar : narrow)) return false;
  }
  return true;
}

void check_outputs(const interop::Case& one, const interop::Reply& reply) {
  const double tolerance = reply.dtype == graft::Dtype::f64 ? 1e-12 : 1e-5;
  const std::vector<double> base = values_of(one.tensors.at("expected.base"));
  for (const auto& [key, view] : one.tensors) {
    if (key.rfind("expected.", 0) != 0) continue;
    const std::string name = key.substr(9);
    CAPTURE(name);
    const std::vector<double> expected = values_of(view);
    if (name != "base" && name != "disabled") REQUIRE(distance(base, expected) > 1e-3);  // the adapter acts
    const auto& output = reply.outputs.at(name);
    CHECK(output.shape == view.shape);
    CHECK(distance(output.values, expected) <= tolerance);
  }
  for (const auto& step : one.text.at("steps"))  // values that graft drew: PEFT has none for these outputs
    if (step.value("unknown", false)) CHECK(distance(base, reply.outputs.at(step.at("to").get<std::string>()).values) > 1e-3);
  if (reply.outputs.count("disabled")) CHECK(reply.outputs.at("disabled").values == reply.outputs.at("base").values);
  if (reply.outputs.count("rescaled")) CHECK(reply.outputs.at("rescaled").values == reply.outputs.at("together").values);
}

/// Merged, PEFT's outputs again, to the rounding of a narrow weight; disabled while merged, the base's bits.
void check_merged(const interop::Case& one, const interop::Reply& reply) {
  const std::string weights = one.text.at("model").at("dtype");
  const double exact = reply.dtype == graft::Dtype::f64 ? 1e-12 : 1e-5;
  const double tolerance = weights == "bf16" ? 0x1p-6 : weights == "f16" ? 0x1p-9 : exact;
  for (const auto& [name, output] : reply.merged) {
    CAPTURE(name);
    const graft::TensorView* expected = one.tensors.find("expected." + name);  // null: PEFT has not seen what graft drew
    CHECK(distance(output.values, expected ? values_of(*expected) : reply.outputs.at(name).values) <= tolerance);
    CHECK(reply.merged_off.at(name).values == reply.outputs.at("base").values);
  }
  for (const auto& [name, why] : reply.unmerged) {
    CAPTURE(name);
    CAPTURE(why);
    const std::vector<std::string> known{"copy of its own", "sees all input channels", "pads with zeros", "max_norm"};
    CHECK(std::any_of(known.begin(), known.end(), [&](const std::string& text) { return why.find(text) != why.npos; }));
  }
}

void check_structure(const interop::Case& one, const interop::Reply& reply) {
  const std::string type = one.text.at("model").at("type");
  const bool own_layers = type == "transposed" || type == "user" || type == "user_conv";  // print as the user's class
  for (const auto& [name, tree] : one.text.at("trees").items())
    if (!own_layers) CHECK(reply.trees.at(name) == tree_for(tree, reply.dtype));
  for (const auto& [name, matched] : one.text.at("matched").items()) CHECK(nlohmann::json(reply.matched.at(name)) == matched);
  for (const auto& [name, keys] : one.text.at("keys").items()) {
    const auto& mine = reply.keys.at(name);
    CHECK(std::set<std::string>(mine.begin(), mine.end()) == keys.get<std::set<std::string>>());
  }
}

void check_files(const interop::Case& one, const interop::Reply& reply) {
  for (const auto& step : one.text.at("steps")) {
    if (step.at("do") != "save") continue;
    const fs::path saved = one.reply_folder / step.at("dir").get<std::string>();
    CHECK(fs::exists(saved / "adapter_model.safetensors"));
    if (step.at("identical_to").is_null()) continue;
    const fs::path original = one.folder / step.at("identical_to").get<std::string>();
    CHECK(with_sorted_sets(saved / "adapter_config.json") == with_sorted_sets(original / "adapter_config.json"));
    if (keeps_dtypes(one, original / "adapter_model.safetensors", reply.dtype))
      CHECK(bytes_of(saved / "adapter_model.safetensors") == bytes_of(original / "adapter_model.safetensors"));
  }
}

void check(const interop::Case& one, const interop::Reply& reply) {
  check_outputs(one, reply);
  check_merged(one, reply);
  check_structure(one, reply);
  check_files(one, reply);
}

}  // namespace

TEST_CASE("graft gives PEFT's outputs, trees, keys and files for every golden case") {
  const auto folders = golden_folders();
  REQUIRE(folders.size() > 80);
  std::size_t merged = 0, packed = 0;
  for (const fs::path& folder : folders) {
    const Scratch scratch;
    const interop::Case one = interop::read_case(folder, scratch.path);
    for (const graft::Dtype scalar : interop::scalars(one)) {
      const std::string name = folder.filename().string();
      CAPTURE(name);
      CAPTURE(graft::tag_of(scalar));
      interop::Reply reply;
      REQUIRE_NOTHROW(reply = interop::run_case(one, scalar));
      check(one, reply);
      merged += reply.merged.size();
      if (one.text.at("model").at("type") != "decoder" || scalar != graft::Dtype::f64) continue;
      CAPTURE("packed");
      REQUIRE_NOTHROW(reply = interop::run_packed_decoder(one));
      check(one, reply);
      ++packed;
    }
  }
  CHECK(merged > 150);
  CHECK(packed > 20);
}
