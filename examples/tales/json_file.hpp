#pragma once

#include <filesystem>
#include <fstream>
#include <graft/core/error.hpp>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace tales {

/// A JSON object on disk that names itself and its field when something is wrong with it.
class JsonFile {
 public:
  /// @throws graft::FileError when the file is missing or is not a JSON object.
  explicit JsonFile(std::filesystem::path path) : path_(std::move(path)), json_(read(path_)) {
    if (!json_.is_object()) fail("it is not a JSON object", "check that this is the file you meant");
  }

  [[nodiscard]] const nlohmann::json& json() const { return json_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// The field as T, or nothing when it is missing or null. @throws graft::FileError for another type.
  template <class T>
  [[nodiscard]] std::optional<T> find(const std::string& field) const {
    const auto place = json_.find(field);
    if (place == json_.end() || place->is_null()) return std::nullopt;
    return as<T>(*place, field);
  }
  template <class T>
  [[nodiscard]] T get(const std::string& field, T otherwise) const {
    return find<T>(field).value_or(std::move(otherwise));
  }
  template <class T>
  [[nodiscard]] T require(const std::string& field) const {
    if (auto value = find<T>(field)) return *std::move(value);
    fail("it has no field '" + field + "'", "take the file that transformers writes");
  }
  /// `value`, which stands at `where` in this file, as T.
  template <class T>
  [[nodiscard]] T as(const nlohmann::json& value, const std::string& where) const {
    const bool fits = std::is_same_v<T, bool>          ? value.is_boolean()
                      : std::is_integral_v<T>          ? value.is_number_integer()
                      : std::is_floating_point_v<T>    ? value.is_number()
                      : std::is_same_v<T, std::string> ? value.is_string()
                                                       : true;
    if (!fits)
      fail("'" + where + "' has the wrong type: " + value.dump(), "take the file that transformers writes");
    return value.get<T>();
  }

  [[noreturn]] void fail(const std::string& why, const std::string& fix) const {
    graft::fail<graft::FileError>("cannot use " + path_.string(), why, fix);
  }

 private:
  static nlohmann::json read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file)
      graft::fail<graft::FileError>("cannot open " + path.string(), "it does not exist or may not be read",
                                    "check the folder");
    nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_discarded())
      graft::fail<graft::FileError>("cannot read " + path.string(), "it is not JSON", "download it again");
    return json;
  }

  std::filesystem::path path_;
  nlohmann::json json_;
};

/// All bytes of a file. @throws graft::FileError when it cannot be read.
inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    graft::fail<graft::FileError>("cannot open " + path.string(), "it is no file that may be read",
                                  "check the path");
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace tales
