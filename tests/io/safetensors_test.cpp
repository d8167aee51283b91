#include "graft/io/safetensors.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "temporary_directory.hpp"

using namespace graft;

namespace {
const std::filesystem::path data = std::filesystem::path(GRAFT_TEST_DATA) / "io";

std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += char(header.size() >> (8 * i) & 0xff);
  return file + header + std::string(data_bytes, '\1');
}
std::string complaint(const std::string& file) {
  try {
    (void)safetensors::load(std::as_bytes(std::span(file)));
  } catch (const FileError& error) {
    CHECK(error.problem == "'(memory)' cannot be read as safetensors");
    CHECK_FALSE(error.fix.empty());
    return error.why;
  }
  return "";
}
std::string as_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
template <class T>
TensorView view_of(const std::vector<T>& values, std::vector<Index> shape) {
  return {dtype_of<T>, std::move(shape), reinterpret_cast<const std::byte*>(values.data()), nullptr};
}
}  // namespace

TEST_CASE("files of the reference implementation are read, and written byte for byte") {
  for (const char* name : {"every_dtype.safetensors", "lora/adapter_model.safetensors",
                           "adalora/adapter_model.safetensors", "ia3/adapter_model.safetensors"}) {
    CAPTURE(name);
    safetensors::Metadata metadata;
    const StateDict state_dict = safetensors::load_file(data / name, {.metadata = &metadata});
    StateDict reversed;
    for (const std::string& key : state_dict.keys()) reversed.insert(key, state_dict.at(key));
    CHECK(as_text(safetensors::serialize(reversed, metadata)) == read_text(data / name));
  }
}

TEST_CASE("every weight file among the test data is written again byte for byte") {
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(GRAFT_TEST_DATA)) {
    if (entry.path().filename() != "adapter_model.safetensors") continue;
    CAPTURE(entry.path().string());
    safetensors::Metadata metadata;
    const StateDict state_dict = safetensors::load_file(entry.path(), {.metadata = &metadata});
    CHECK(as_text(safetensors::serialize(state_dict, metadata)) == read_text(entry.path()));
    ++count;
  }
  CHECK(count > 80);
}

TEST_CASE("metadata is written by the order of its keys, so that equal files have equal bytes") {
  const std::string text = as_text(safetensors::serialize({}, {{"z", "1"}, {"format", "pt"}, {"b", "2"}, {"a", "3"}}));
  CHECK(text.find(R"({"__metadata__":{"a":"3","b":"2","format":"pt","z":"1"}})") == 8);
}

TEST_CASE("every dtype, name and shape arrives") {
  safetensors::Metadata metadata;
  const StateDict state_dict =
      safetensors::load_file(data / "every_dtype.safetensors", {.metadata = &metadata});
  CHECK(metadata == safetensors::Metadata{{"form\tat", "p\u2028t"}});
  CHECK(state_dict.keys() == std::vector<std::string>{"long", "double", "b", "é", "int",
                                                      "quote \" \\ \n \x01 \x7f", "a", "short", "char",
                                                      "byte", "bool"});
  const auto value = [&]<class T>(const char* key, T) {
    REQUIRE(state_dict.at(key).dtype == dtype_of<T>);
    T first{};
    std::memcpy(&first, state_dict.at(key).data, sizeof(T));
    return first;
  };
  CHECK(value("long", std::int64_t{}) == -1);
  CHECK(value("double", 0.0) == 0.1);
  CHECK(value("b", 0.0f) == 1.0f);
  CHECK(value("é", 0.0f) == 3.0f);
  CHECK(value("int", std::int32_t{}) == 7);
  CHECK(float(value("a", f16{})) == 0.5f);
  CHECK(value("short", std::int16_t{}) == -7);
  CHECK(value("char", std::int8_t{}) == -3);
  CHECK(value("byte", std::uint8_t{}) == 250);
  CHECK(value("bool", bool{}));
  CHECK(state_dict.at("é").shape.empty());
  const TensorView& empty = state_dict.at("quote \" \\ \n \x01 \x7f");
  CHECK(empty.shape == std::vector<Index>{0, 3});
  CHECK(empty.dtype == Dtype::bf16);
  CHECK(empty.device() == Device::cpu);
}

TEST_CASE("views share one mapping, which outlives the dict and takes writes for itself") {
  const TemporaryDirectory directory;
  const std::string original = read_text(data / "lora/adapter_model.safetensors");
  write_text(directory / "file", original);
  TensorView view;
  {
    const StateDict state_dict = safetensors::load_file(directory / "file");
    view = state_dict.at("base_model.model.lin0.lora_A.weight");
    CHECK(view.owner == state_dict.at("base_model.model.lin0.lora_B.weight").owner);
  }
  REQUIRE(view.shape == std::vector<Index>{2, 4});
  const_cast<std::byte*>(view.data)[0] = std::byte{42};
  CHECK(view.data[0] == std::byte{42});
  CHECK(read_text(directory / "file") == original);
  safetensors::save_file({}, directory / "file");
  CHECK(view.data[0] == std::byte{42});
  CHECK(read_text(directory / "file") == file_of("{}      ", 0));
}

TEST_CASE("a file read at once is independent of the file") {
  const TemporaryDirectory directory;
  write_text(directory / "file", read_text(data / "lora/adapter_model.safetensors"));
  const StateDict state_dict = safetensors::load_file(directory / "file", {.mapped = false});
  const auto before = as_text(safetensors::serialize(state_dict));
  write_text(directory / "file", std::string(std::filesystem::file_size(directory / "file"), 'x'));
  CHECK(as_text(safetensors::serialize(state_dict)) == before);
}

TEST_CASE("every damaged file is refused before a byte of it is used") {
  const std::string one = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  CHECK(complaint(file_of(one, 8)) == "");
  const auto two = [](const char* a, const char* b) {
    return std::string(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)") + a +
           R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}";
  };
  CHECK(complaint(file_of(two("[2,4]", "[0,2]"), 4)) == "");
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "it is empty"},
      {"1234567", "it has 7 bytes, fewer than eight"},
      {std::string(8, '\xff'), "its header would have 18446744073709551615 bytes, more than 100,000,000"},
      {std::string("\x01\xe1\xf5\x05\0\0\0\0", 8),
       "its header would have 100000001 bytes, more than 100,000,000"},
      {std::string("\x03\0\0\0\0\0\0\0{}", 10), "its header would have 3 bytes, but only 2 follow"},
      {std::string(8, '\0'), "its header is wrong: it does not begin with '{'"},
      {file_of("{}", 1), "1 bytes follow the last tensor"},
      {file_of(one, 7), "the tensors need 8 bytes, but only 7 bytes follow the header"},
      {file_of(one, 9), "1 bytes follow the last tensor"},
      {file_of(two("[0,2]", "[0,2]"), 4), "tensor 'b' overlaps the one before it"},
      {file_of(two("[0,2]", "[1,3]"), 4), "tensor 'b' overlaps the one before it"},
      {file_of(two("[0,2]", "[3,5]"), 5), "there is a hole of 1 bytes before tensor 'b'"},
      {file_of(two("[1,3]", "[3,5]"), 5), "there is a hole of 1 bytes before tensor 'a'"},
      {file_of(two("[0,2]", "[4,2]"), 4), "tensor 'b' ends before it begins"},
      {file_of(two("[0,3]", "[3,5]"), 5), "tensor 'a' has 3 bytes, but its shape (2,) of U8 needs 2 bytes"},
      {file_of(R"({"t":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0),
       "tensor 't' has a shape too large to exist, (4611686018427387904, 4) of F32"},
      {file_of(R"({"t":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0),
       "tensor 't' has a shape too large to exist, (2305843009213693952,) of F64"},
      {file_of(R"({"t":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}})", 8),
       "its header is wrong: tensor 't' has the dtype 'U64', which graft does not know"}};
  for (const auto& [file, why] : cases) CHECK(complaint(file) == why);
  const std::string good = read_text(data / "every_dtype.safetensors");
  for (std::size_t length = 0; length < good.size(); ++length) {
    CAPTURE(length);
    REQUIRE(complaint(good.substr(0, length)) != "");
  }
}

TEST_CASE("whatever a damaged file says, its tensors lie within it or it is refused with a reason") {
  const std::string good = read_text(data / "every_dtype.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, good.data(), 8);
  std::mt19937 random(7);
  const char* const pieces[] = {"\"", "{", "}", "[", "]", ",", ":", "0", "-1", "1e999", "18446744073709551615", "null", "\xff",
                                "\"shape\"", "\"dtype\"", "__metadata__", "4294967296"};
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string header = good.substr(8, length);
    const std::size_t at = random() % header.size();
    switch (random() % 5) {
      case 0:
        header[at] = char(random());
        break;
      case 1:
        header.erase(at, 1 + random() % 8);
        break;
      case 2:
        header.insert(at, pieces[random() % std::size(pieces)]);
        break;
      case 3:
        header.insert(at, header.substr(random() % header.size(), random() % 64));
        break;
      default:
        if (const std::size_t digit = header.find_first_of("0123456789", at); digit < header.size())
          header[digit] = char('0' + random() % 10);
    }
    const std::string file = file_of(header, 0) + good.substr(8 + length);
    const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(file.data()),
                                       reinterpret_cast<const std::byte*>(file.data() + file.size()));
    try {
      unsigned sum = 0;
      for (const auto& [key, view] : safetensors::load(bytes)) {
        REQUIRE(view.data >= bytes.data());
        REQUIRE(view.data + view.bytes() <= bytes.data() + bytes.size());
        for (std::size_t i = 0; i < view.bytes(); ++i) sum += unsigned(view.data[i]);
      }
      accepted += sum != 0;
    } catch (const FileError& error) {
      REQUIRE_FALSE(error.fix.empty());
      REQUIRE(std::string(error.what()).size() < 2000);
    }
  }
  CHECK(accepted > 0);
  CHECK(accepted < 20'000);
}

TEST_CASE("errors of files name the file") {
  const TemporaryDirectory directory;
  write_text(directory / "bad.safetensors", "x");
  try {
    (void)safetensors::load_file(directory / "bad.safetensors");
    FAIL("was read");
  } catch (const FileError& error) {
    CHECK(error.problem ==
          "'" + (directory / "bad.safetensors").string() + "' cannot be read as safetensors");
  }
  CHECK_THROWS_AS((void)safetensors::load_file(directory / "missing"), FileError);
  CHECK_THROWS_AS((void)safetensors::load_file(directory.path()), FileError);
}

TEST_CASE("a dict that cannot be saved is refused, and the older file stays") {
  const TemporaryDirectory directory;
  write_text(directory / "file", "old");
  const std::vector<float> values{1, 2};
  StateDict meta, name, reserved, good;
  meta.insert("a", view_of(values, {2}));
  meta.insert("m", {Dtype::f32, {2}, nullptr, nullptr});
  name.insert("\xff", view_of(values, {2}));
  reserved.insert("__metadata__", view_of(values, {2}));
  good.insert("a", view_of(values, {2}));
  CHECK_THROWS_AS(safetensors::save_file(meta, directory / "file"), MetaError);
  CHECK_THROWS_AS(safetensors::save_file(name, directory / "file"), FileError);
  CHECK_THROWS_AS(safetensors::save_file(reserved, directory / "file"), FileError);
  CHECK_THROWS_AS(safetensors::save_file(good, directory / "file", {{"a", "\xff"}}), FileError);
  CHECK_THROWS_AS(safetensors::save_file(good, directory / "missing/file"), FileError);
  CHECK(read_text(directory / "file") == "old");
  CHECK(directory.file_count() == 1);
  safetensors::save_file(good, directory / "file", {{"format", "pt"}});
  CHECK(read_text(directory / "file") == as_text(safetensors::serialize(good, {{"format", "pt"}})));
  CHECK(directory.file_count() == 1);
}

TEST_CASE("a tensor can be saved over the file that it is a view of") {
  const TemporaryDirectory directory;
  const std::string original = read_text(data / "every_dtype.safetensors");
  write_text(directory / "file", original);
  safetensors::Metadata metadata;
  const StateDict state_dict = safetensors::load_file(directory / "file", {.metadata = &metadata});
  safetensors::save_file(state_dict, directory / "file", metadata);
  CHECK(read_text(directory / "file") == original);
}

TEST_CASE("bytes in memory are kept alive by the owner that is given") {
  const auto bytes = std::make_shared<const std::string>(
      file_of(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1));
  const StateDict state_dict = safetensors::load(std::as_bytes(std::span(*bytes)), bytes);
  CHECK(bytes.use_count() == 2);
  CHECK(state_dict.at("t").data == reinterpret_cast<const std::byte*>(bytes->data() + bytes->size() - 1));
}
