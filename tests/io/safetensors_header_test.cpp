#include "graft/io/safetensors_header.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace graft;
using safetensors::parse_header;

TEST_CASE("a header is read in the order of its text") {
  const auto header = parse_header(
      R"( {"__metadata__":{"format":"pt"}, "b":{"dtype":"BF16","shape":[2,0],"data_offsets":[4,4]},
           "é":{"data_offsets":[0,4],"note":[{"x":[1.5,null]},true],"shape":[],"dtype":"F32"}}  )");
  CHECK(header.problem == "");
  CHECK(header.metadata == safetensors::Metadata{{"format", "pt"}});
  REQUIRE(header.entries.size() == 2);
  CHECK(header.entries[0].name == "b");
  CHECK(header.entries[0].dtype == Dtype::bf16);
  CHECK(header.entries[0].shape == std::vector<Index>{2, 0});
  CHECK(header.entries[0].begin == 4);
  CHECK(header.entries[1].name == "é");
  CHECK(header.entries[1].shape.empty());
  CHECK(header.entries[1].end == 4);
  CHECK(parse_header(R"({"__metadata__":null})").problem == "");
}

TEST_CASE("what is wrong with a header is said") {
  const std::string scalar = R"({"dtype":"F32","shape":[],"data_offsets":[0,4]})";
  const auto entry = [](const std::string& fields) { return R"({"t":{)" + fields + "}}"; };
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "does not begin with '{'"},
      {"[]", "does not begin with '{'"},
      {"\xef\xbb\xbf{}", "does not begin with '{'"},
      {"{", "not valid JSON"},
      {"{}x", "not valid JSON"},
      {std::string("{}\0x", 4), "zero byte"},
      {R"({"t":1})", "'t' is not an object"},
      {R"({"t":null})", "'t' is not an object"},
      {R"({"t":[]})", "'t' is not an object"},
      {R"({"t":{}})", "lacks one of"},
      {R"({"__metadata__":{"a":1}})", "metadata 'a' is not a string"},
      {R"({"__metadata__":{"a":{}}})", "metadata 'a' is not a string"},
      {R"({"__metadata__":{"a":["x"]}})", "metadata 'a' is not a string"},
      {R"({"__metadata__":{"a":"x","a":"x"}})", "'a' stands twice"},
      {entry(R"("dtype":"F4","shape":[1],"data_offsets":[0,4])"), "tensor 't' has the dtype 'F4'"},
      {entry(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])"), "tensor 't' has the dtype 'f32'"},
      {entry(R"("dtype":1,"shape":[1],"data_offsets":[0,4])"), "wrong type in 'dtype'"},
      {entry(R"("dtype":"F32","shape":"1","data_offsets":[0,4])"), "wrong type in 'shape'"},
      {entry(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "wrong type in 'shape'"},
      {entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "wrong type in 'shape'"},
      {entry(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), "wrong type in 'shape'"},
      {entry(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4])"), "too large"},
      {entry(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "two data_offsets"},
      {entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "two data_offsets"},
      {entry(R"("dtype":"F32","shape":[1])"), "lacks one of"},
      {entry(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])"), "'dtype' stands twice"},
      {"{\"t\":" + scalar + ",\"t\":" + scalar + "}",
       "'t' stands twice"},
      {"{\"\xff\":{}}", "UTF-8"},
      {std::string(1, '{') + R"("t":{"x":)" + std::string(1'000'000, '['), "not valid JSON"}};
  for (const auto& [text, part] : cases) {
    CAPTURE(text.substr(0, 100));
    const std::string problem = parse_header(text).problem;
    CHECK_MESSAGE(problem.find(part) != std::string::npos, problem);
    CHECK(problem.size() < 1000);
  }
}

TEST_CASE("a header is written as the reference implementation writes it") {
  CHECK(safetensors::header_text({}, {}) == "{}      ");
  const std::string text =
      safetensors::header_text({{"é\n\"\x7f", Dtype::f32, {2, 3}, 0, 24}}, {{"format", "pt"}});
  CHECK(text ==
        "{\"__metadata__\":{\"format\":\"pt\"},\"é\\n\\\"\x7f\":{\"dtype\":\"F32\",\"shape\":[2,3],"
        "\"data_offsets\":[0,24]}}  ");
  CHECK(text.size() % 8 == 0);
}
