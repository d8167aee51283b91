#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#ifndef GRAFT_SOURCE_DIR
#define GRAFT_SOURCE_DIR "."
#endif

namespace tales_test {

inline const std::filesystem::path tales_folder =
    std::filesystem::path(GRAFT_SOURCE_DIR) / "examples" / "tales";

/// A folder that is gone at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "graft-tales-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, std::string_view text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  void write(const std::string& name, const nlohmann::json& json) const {
    write(name, std::string_view(json.dump()));
  }

 private:
  std::filesystem::path path_;
};

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// zlib's checksum, of ids as little-endian int32.
inline std::uint32_t crc32(std::span<const int> ids) {
  std::uint32_t crc = ~0u;
  for (const int id : ids)
    for (int byte = 0; byte < 4; ++byte) {
      crc ^= std::uint32_t(id) >> (8 * byte) & 0xffu;
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1u ? 0xedb88320u : 0u);
    }
  return ~crc;
}

}  // namespace tales_test
