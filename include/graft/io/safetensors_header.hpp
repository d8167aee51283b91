#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/dtype.hpp"
#include "../core/on_demand.hpp"
#include "../tensor/shape.hpp"
#include "json.hpp"

namespace graft::safetensors {

/// The strings that a file carries beside its tensors; PEFT writes {"format": "pt"}.
using Metadata = std::map<std::string, std::string>;

/// One tensor of a header: where its bytes are, counted from the first byte after the header.
struct Entry {
  std::string name{};
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape{};
  std::size_t begin = 0, end = 0;
};

/// What a file's header says, or what is wrong with it.
struct Header {
  std::vector<Entry> entries{};  ///< in the order of the text
  Metadata metadata{};
  std::string problem{};  ///< empty: the text is a header
};

inline constexpr std::size_t largest_header = 100'000'000;

namespace detail {

/// Reads a header in one pass, without a tree of values: the memory it needs is the entries'.
class HeaderReader {
 public:
  Header header;

  bool null() { return scalar_is_fine() || (depth_ == 1 && name_ == metadata_key) || wrong_type(); }
  bool boolean(bool) { return scalar_is_fine() || wrong_type(); }
  bool number_integer(std::int64_t) { return scalar_is_fine() || wrong_type(); }
  bool number_float(double, const std::string&) { return scalar_is_fine() || wrong_type(); }
  bool binary(const std::vector<std::uint8_t>&) { return wrong_type(); }
  bool number_unsigned(std::uint64_t value) {
    if (scalar_is_fine()) return true;
    if (depth_ != 3) return wrong_type();
    if (value > std::uint64_t(std::numeric_limits<Index>::max()))
      return complain(tensor() + " has the number " + std::to_string(value) + ", which is too large");
    if (field_ == Field::shape)
      header.entries.back().shape.push_back(Index(value));
    else
      offsets_.push_back(std::size_t(value));
    return true;
  }
  bool string(std::string& value) {
    if (scalar_is_fine()) return true;
    if (depth_ == 2 && in_metadata_)
      return header.metadata.emplace(key_, std::move(value)).second || stands_twice(key_);
    if (depth_ != 2 || field_ != Field::dtype) return wrong_type();
    const std::optional<Dtype> dtype = dtype_of_tag(value);
    if (!dtype)
      return complain(tensor() + " has the dtype '" + value.substr(0, 40) + "', which graft does not know");
    header.entries.back().dtype = *dtype;
    return true;
  }
  bool start_object(std::size_t) {
    if (skipped_ > 0) return ++skipped_ > 0;
    if (depth_ > 1) return field_ == Field::unknown && !in_metadata_ ? ++skipped_ > 0 : wrong_type();
    if (depth_++ == 1) in_metadata_ = name_ == metadata_key;
    if (depth_ == 2 && !in_metadata_) {
      header.entries.push_back({.name = name_});
      offsets_.clear();
      seen_ = 0;
    }
    return true;
  }
  bool end_object() {
    if (skipped_ > 0) return end_skipped();
    if (depth_-- == 2 && !in_metadata_) {
      if (seen_ != all_fields) return complain(tensor() + " lacks one of dtype, shape and data_offsets");
      if (offsets_.size() != 2) return complain(tensor() + " needs two data_offsets");
      header.entries.back().begin = offsets_[0];
      header.entries.back().end = offsets_[1];
    }
    return true;
  }
  bool start_array(std::size_t) {
    if (skipped_ > 0) return ++skipped_ > 0;
    if (depth_ != 2 || in_metadata_ || field_ == Field::dtype) return wrong_type();
    if (field_ == Field::unknown) return ++skipped_ > 0;
    ++depth_;
    return true;
  }
  bool end_array() {
    if (skipped_ > 0) return end_skipped();
    --depth_;
    return true;
  }
  bool key(std::string& name) {
    if (skipped_ > 0) return true;
    if (depth_ == 1) {
      name_ = name;
      return names_.insert(std::move(name)).second || stands_twice(name_);
    }
    key_ = std::move(name);
    if (in_metadata_) return true;
    field_ = key_ == "dtype"          ? Field::dtype
             : key_ == "shape"        ? Field::shape
             : key_ == "data_offsets" ? Field::data_offsets
                                      : Field::unknown;
    if (field_ == Field::unknown) return true;
    const unsigned bit = 1u << unsigned(field_);
    if (seen_ & bit) return stands_twice(key_);
    seen_ |= bit;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& exception) {
    return complain("it is not valid JSON: " + graft::detail::json_complaint(exception));
  }

 private:
  enum class Field { dtype, shape, data_offsets, unknown };
  static constexpr unsigned all_fields = 7;
  static constexpr std::string_view metadata_key = "__metadata__";

  bool scalar_is_fine() const {
    return skipped_ > 0 || (depth_ == 2 && !in_metadata_ && field_ == Field::unknown);
  }
  bool end_skipped() {
    --skipped_;
    return true;
  }
  std::string tensor() const { return "tensor '" + name_ + "'"; }
  bool wrong_type() {
    if (depth_ == 0) return complain("it is not an object");
    if (depth_ == 1) return complain("'" + name_ + "' is not an object");
    if (in_metadata_) return complain("the metadata '" + key_ + "' is not a string");
    return complain(tensor() + " has a value of the wrong type in '" + key_ + "'");
  }
  bool stands_twice(const std::string& name) { return complain("the name '" + name + "' stands twice"); }
  bool complain(std::string text) {
    header.problem = std::move(text);
    return false;
  }

  int depth_ = 0;            // 1: in the header, 2: in a tensor or the metadata, 3: in a shape or the offsets
  std::size_t skipped_ = 0;  // open brackets inside a field that nobody knows
  bool in_metadata_ = false;
  std::string name_, key_;
  Field field_ = Field::unknown;
  unsigned seen_ = 0;
  std::vector<std::size_t> offsets_;
  std::unordered_set<std::string> names_;
};

}  // namespace detail

/// Reads the text of a header. What is wrong with it stands in `problem`.
template <class = OnDemand>
[[nodiscard]] Header parse_header(std::string_view text) {
  detail::HeaderReader reader;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{')
    reader.header.problem = "it does not begin with '{'";
  else if (text.find('\0') != std::string_view::npos)
    reader.header.problem = "it contains a zero byte";
  else
    nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return std::move(reader.header);
}
GRAFT_SHARED_FUNCTION(parse_header<>)

/// Writes a header as the reference implementation does, padded with spaces to a multiple of eight bytes.
[[nodiscard]] inline std::string header_text(const std::vector<Entry>& entries, const Metadata& metadata) {
  using graft::detail::json_quoted;
  std::string text = "{";
  const auto comma = [&] { return text.size() > 1 ? "," : ""; };
  if (!metadata.empty()) {
    std::string strings;
    for (const auto& [key, value] : metadata)
      strings += (strings.empty() ? "" : ",") + json_quoted(key, false) + ":" + json_quoted(value, false);
    text += "\"__metadata__\":{" + strings + "}";
  }
  for (const Entry& entry : entries) {
    text += comma() + json_quoted(entry.name, false);
    text.append(":{\"dtype\":\"").append(tag_of(entry.dtype)).append("\",\"shape\":[");
    for (std::size_t axis = 0; axis < entry.shape.size(); ++axis) text.append(axis ? "," : "").append(std::to_string(entry.shape[axis]));
    text.append("],\"data_offsets\":[").append(std::to_string(entry.begin)).append(",").append(std::to_string(entry.end)).append("]}");
  }
  text += "}";
  return text.append((8 - text.size() % 8) % 8, ' ');
}

}  // namespace graft::safetensors
