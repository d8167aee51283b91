#pragma once

#include <filesystem>
#include <graft/core/error.hpp>
#include <string>
#include <vector>

#include "json_file.hpp"

namespace tales {

/// reference.json: what transformers and PEFT compute with the shipped files, in f32.
/// Configurations are "base", "lora", "adalora", "ia3" and "disabled"; texts "opticks" and "austen".
class Reference {
 public:
  explicit Reference(const std::filesystem::path& file) : file_(file) {}

  [[nodiscard]] double perplexity(const std::string& configuration, const std::string& text,
                                  bool quick) const {
    return at({"float32", configuration, quick ? "quick" : "perplexity", text}).get<double>();
  }
  [[nodiscard]] std::vector<int> continuation(const std::string& configuration) const {
    return at({"float32", configuration, "continuation", "ids"}).get<std::vector<int>>();
  }
  /// Whatever stands under a list of nested fields. @throws graft::FileError when it is missing.
  [[nodiscard]] const nlohmann::json& at(const std::vector<std::string>& fields) const {
    const nlohmann::json* here = &file_.json();
    for (const std::string& field : fields) {
      if (!here->is_object() || !here->contains(field))
        file_.fail("it has no field '" + field + "'",
                   "restore the file, or make it again with recipe/make.py");
      here = &(*here)[field];
    }
    return *here;
  }

 private:
  JsonFile file_;
};

}  // namespace tales
