#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../tensor/state_dict.hpp"
#include "atomic_file.hpp"
#include "mapped_file.hpp"
#include "safetensors_header.hpp"

/// The safetensors container (huggingface/safetensors). It knows nothing of adapters.
namespace graft::safetensors {

struct LoadFileOptions {
  bool mapped = true;            ///< false: the file is read into memory at once
  Metadata* metadata = nullptr;  ///< receives the strings that the file carries
};

namespace detail {

inline constexpr std::size_t length_bytes = 8;  // the header's length, little-endian

[[noreturn]] inline void refuse(const std::string& source, std::string why, std::string fix = {}) {
  if (fix.empty()) fix = "the file is damaged or no safetensors file: save or download it again";
  fail<FileError>("'" + source + "' cannot be read as safetensors", std::move(why), std::move(fix));
}

/// The bytes that a shape needs, or nothing when their number does not fit.
[[nodiscard]] inline std::optional<std::size_t> bytes_of(const Entry& entry) {
  std::size_t elements = 1;
  const std::size_t most = std::size_t(std::numeric_limits<Index>::max()) / size_of(entry.dtype);
  for (Index dimension : entry.shape) {
    if (dimension && elements > most / std::size_t(dimension)) return std::nullopt;
    elements *= std::size_t(dimension);
  }
  return elements * size_of(entry.dtype);
}

/// Checks that the tensors cover the data from its first byte to its last, without holes or overlaps.
inline void check_entries(const std::vector<Entry>& entries, std::size_t data_bytes,
                          const std::string& source) {
  std::size_t next = 0;
  const auto bytes = [](std::size_t count) { return std::to_string(count) + " bytes"; };
  for (const Entry& entry : entries) {
    const std::string tensor = "tensor '" + entry.name + "'";
    if (entry.end < entry.begin) refuse(source, tensor + " ends before it begins");
    if (entry.begin < next) refuse(source, tensor + " overlaps the one before it");
    if (entry.begin > next)
      refuse(source, "there is a hole of " + bytes(entry.begin - next) + " before " + tensor);
    const std::optional<std::size_t> needed = bytes_of(entry);
    const std::string shape = to_string(std::span(entry.shape)) + " of " + std::string(tag_of(entry.dtype));
    if (!needed) refuse(source, tensor + " has a shape too large to exist, " + shape);
    if (*needed != entry.end - entry.begin)
      refuse(source, tensor + " has " + bytes(entry.end - entry.begin) + ", but its shape " + shape +
                         " needs " + bytes(*needed));
    next = entry.end;
  }
  if (next > data_bytes)
    refuse(source,
           "the tensors need " + bytes(next) + ", but only " + bytes(data_bytes) + " follow the header",
           "the file is cut short: save or download it again");
  if (next < data_bytes) refuse(source, bytes(data_bytes - next) + " follow the last tensor");
}

template <class = OnDemand>
[[nodiscard]] StateDict read(std::span<const std::byte> file, const std::shared_ptr<const void>& owner,
                             const std::string& source, Metadata* metadata) {
  if (file.size() < length_bytes)
    refuse(source, file.empty() ? "it is empty"
                                : "it has " + std::to_string(file.size()) + " bytes, fewer than eight");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  if (length > largest_header)
    refuse(source, "its header would have " + std::to_string(length) + " bytes, more than 100,000,000");
  if (length > file.size() - length_bytes)
    refuse(source,
           "its header would have " + std::to_string(length) + " bytes, but only " +
               std::to_string(file.size() - length_bytes) + " follow",
           "the file is cut short or no safetensors file: save or download it again");

  Header header =
      parse_header({reinterpret_cast<const char*>(file.data()) + length_bytes, std::size_t(length)});
  if (!header.problem.empty()) refuse(source, "its header is wrong: " + header.problem);
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::span<const std::byte> data = file.subspan(length_bytes + std::size_t(length));
  check_entries(header.entries, data.size(), source);

  StateDict state_dict;
  for (Entry& entry : header.entries)
    state_dict.insert(std::move(entry.name),
                      {entry.dtype, std::move(entry.shape), data.data() + entry.begin, owner});
  if (metadata) *metadata = std::move(header.metadata);
  return state_dict;
}
GRAFT_SHARED_FUNCTION(read<>)

/// A file about to be written: its header, and the tensors in the order of their bytes.
struct Layout {
  std::string header;  ///< with its length before it
  std::vector<const TensorView*> tensors;
  std::size_t data_bytes = 0;
};

template <class = OnDemand>
[[nodiscard]] Layout lay_out(const StateDict& state_dict, const Metadata& metadata) {
  // The reference implementation's order of dtypes, which keeps every tensor aligned.
  constexpr std::array order{Dtype::i64, Dtype::f64, Dtype::f32, Dtype::i32, Dtype::bf16,
                             Dtype::f16, Dtype::i16, Dtype::i8,  Dtype::u8,  Dtype::boolean};
  const auto rank = [&](Dtype dtype) { return std::find(order.begin(), order.end(), dtype) - order.begin(); };
  std::vector<const StateDict::value_type*> sorted;
  for (const auto& item : state_dict) sorted.push_back(&item);
  std::sort(sorted.begin(), sorted.end(), [&](const auto* a, const auto* b) {
    return a->second.dtype != b->second.dtype ? rank(a->second.dtype) < rank(b->second.dtype)
                                              : a->first < b->first;
  });

  const auto check_text = [](const std::string& text, const char* what) {
    if (!graft::detail::is_utf8(text))
      fail<FileError>(std::string("a ") + what + " cannot be written to safetensors",
                      graft::detail::json_quoted(text, true) + " is not valid UTF-8", "rename it");
  };
  for (const auto& [key, value] : metadata) {
    check_text(key, "metadata key");
    check_text(value, "metadata value");
  }
  Layout layout;
  std::vector<Entry> entries;
  for (const auto* item : sorted) {
    const auto& [name, view] = *item;
    check_text(name, "tensor's name");
    if (name == "__metadata__")
      fail<FileError>("a tensor called '__metadata__' cannot be written to safetensors",
                      "the format keeps that name for itself", "rename the tensor");
    if (view.device() == Device::meta)
      fail<MetaError>("tensor '" + name + "' cannot be saved", "it is on the meta device and has no values",
                      "load or initialise it first");
    Entry entry{name, view.dtype, view.shape, layout.data_bytes, layout.data_bytes + view.bytes()};
    layout.data_bytes = entry.end;
    layout.tensors.push_back(&view);
    entries.push_back(std::move(entry));
  }
  const std::string text = header_text(entries, metadata);
  if (text.size() > largest_header)
    fail<FileError>("the tensors cannot be written to one safetensors file",
                    "their header would have over 100,000,000 bytes", "split them over several files");
  for (std::size_t i = 0; i < length_bytes; ++i)
    layout.header += char(std::uint64_t(text.size()) >> (8 * i) & 0xff);
  layout.header += text;
  return layout;
}
GRAFT_SHARED_FUNCTION(lay_out<>)

}  // namespace detail

/// Opens a file. Only its header is read now; the views share a private, copy-on-write mapping of the rest,
/// which lives as long as one of them. Every offset is checked before a view is made. The order is that of
/// the bytes.
/// @throws FileError naming the file and what is wrong with it.
[[nodiscard]] inline StateDict load_file(const std::filesystem::path& path, LoadFileOptions options = {}) {
  const auto file = options.mapped ? MappedFile::open(path) : MappedFile::copy(path);
  return detail::read(file->bytes(), file, path.string(), options.metadata);
}

/// Reads a file that is in memory already. The views point into `bytes`; `owner` keeps those alive, and
/// without one the caller does. @throws FileError as `load_file` does.
[[nodiscard]] inline StateDict load(std::span<const std::byte> bytes,
                                    std::shared_ptr<const void> owner = nullptr,
                                    Metadata* metadata = nullptr) {
  return detail::read(bytes, owner, "(memory)", metadata);
}

/// The bytes of a file with these tensors: those that the reference implementation writes.
/// @throws MetaError for a tensor without memory, FileError for a name that is not valid UTF-8.
[[nodiscard]] inline std::vector<std::byte> serialize(const StateDict& state_dict,
                                                      const Metadata& metadata = {}) {
  const detail::Layout layout = detail::lay_out(state_dict, metadata);
  std::vector<std::byte> bytes(layout.header.size() + layout.data_bytes);
  std::byte* next = std::copy_n(reinterpret_cast<const std::byte*>(layout.header.data()),
                                layout.header.size(), bytes.data());
  for (const TensorView* view : layout.tensors) next = std::copy_n(view->data, view->bytes(), next);
  return bytes;
}

/// Writes `serialize(state_dict, metadata)` to a file that appears whole or not at all.
/// @throws MetaError and FileError; an older file of that name is then as it was.
inline void save_file(const StateDict& state_dict, const std::filesystem::path& path,
                      const Metadata& metadata = {}) {
  const detail::Layout layout = detail::lay_out(state_dict, metadata);
  AtomicFile file(path);
  file.write(layout.header);
  for (const TensorView* view : layout.tensors) file.write(view->data, view->bytes());
  file.commit();
}

}  // namespace graft::safetensors
