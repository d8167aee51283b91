#pragma once

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../io/pretrained.hpp"

namespace graft {

/// An adapter in memory: the bytes of its adapter_model.safetensors and the text of its adapter_config.json.
struct AdapterBuffer {
  std::span<const std::byte> weights;
  std::string_view config;
  std::shared_ptr<const void> owner = nullptr;  ///< keeps `weights` alive; without one the bytes are copied
};

namespace detail {

/// Where an adapter's weights can be had again: a mapped file, or a buffer that is kept.
struct AdapterSource {
  std::string label;  ///< as errors name it
  PeftConfig config{};
  StateDict weights{};          ///< views of it
  std::size_t kept_bytes = 0;   ///< of a buffer: no file holds them
  std::vector<std::string> warnings{};

  /// @throws FileError, ConfigError
  [[nodiscard]] static AdapterSource of(const std::filesystem::path& dir) {
    AdapterSource source{"'" + dir.string() + "'"};
    source.config = load_peft_config(dir, &source.warnings);
    source.weights = read_weights(dir, true);
    source.settle();
    return source;
  }
  [[nodiscard]] static AdapterSource of(const AdapterBuffer& buffer) {
    AdapterSource source{"a buffer"};
    source.config = parse_config(buffer.config, &source.warnings, "the config in memory");
    source.kept_bytes = buffer.weights.size();
    std::span<const std::byte> bytes = buffer.weights;
    std::shared_ptr<const void> owner = buffer.owner;
    if (!owner) {
      const auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
      bytes = *copy;
      owner = copy;
    }
    source.weights = safetensors::load(bytes, owner);
    source.settle();
    return source;
  }

 private:
  void settle() {
    std::visit([](auto& c) { c.inference_mode = true; }, config);
  }
};

}  // namespace detail
}  // namespace graft
