#include "../tokenizer.hpp"

#include <doctest/doctest.h>

#include "../reference.hpp"
#include "support.hpp"

using tales::Tokenizer;
using tales_test::tales_folder;
using tales_test::TemporaryFolder;

namespace {
nlohmann::json shipped_tokenizer() { return tales_test::read_json(tales_folder / "base" / "tokenizer.json"); }

Tokenizer from(const nlohmann::json& document) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", document);
  return Tokenizer(folder.path());
}

std::string error_of(const nlohmann::json& document) {
  try {
    from(document);
  } catch (const graft::FileError& error) {
    return error.what();
  }
  return "";
}
}  // namespace

TEST_CASE("tales: all shipped texts become the ids that tokenizers gives, and text again") {
  const Tokenizer tokenizer(tales_folder / "base");
  const tales::Reference reference(tales_folder / "reference.json");
  for (const std::string name : {"opticks.train", "opticks.test", "austen.test"}) {
    CAPTURE(name);
    const std::string text = tales::read_text(tales_folder / "text" / (name + ".txt"));
    const auto ids = tokenizer.encode(text);
    CHECK(ids.size() == reference.at({"tokens", name, "count"}).get<std::size_t>());
    CHECK(tales_test::crc32(ids) == reference.at({"tokens", name, "crc32"}).get<std::uint32_t>());
    CHECK(tokenizer.decode(ids) == text);
  }
  CHECK(tokenizer.encode("The rays of light") == reference.at({"prompt", "ids"}).get<std::vector<int>>());
  CHECK(tokenizer.size() == 1024);
}

TEST_CASE("tales: other scripts and other settings tokenise as in tokenizers") {
  const auto file = tales_test::read_json(tales_folder / "tests" / "tokenizer_cases.json");
  for (const auto& example : file["cases"]) {
    CAPTURE(example["name"].get<std::string>());
    auto document = shipped_tokenizer();
    const auto& change = example["change"];
    for (const char* field : {"pre_tokenizer", "added_tokens"})
      if (change.contains(field)) document[field] = change[field];
    if (change.contains("ignore_merges")) document["model"]["ignore_merges"] = true;
    if (change.contains("merged")) {
      const auto& merged = change["merged"];
      document["model"]["merges"].push_back(merged);
      auto& vocabulary = document["model"]["vocab"];
      vocabulary[merged[0].get<std::string>() + merged[1].get<std::string>()] = vocabulary.size();
    }
    if (change.contains("merges_as_strings"))
      for (auto& merge : document["model"]["merges"])
        merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    const Tokenizer tokenizer = from(document);
    for (std::size_t i = 0; i < file["texts"].size(); ++i) {
      CAPTURE(i);
      const auto text = file["texts"][i].get<std::string>();
      const auto ids = tokenizer.encode(text);
      CHECK(ids == example["ids"][i].get<std::vector<int>>());
      CHECK(tokenizer.decode(ids).ends_with(text));
    }
  }
}

TEST_CASE("tales: a tokenizer of another kind is an error that names it and --ids") {
  const auto rejects = [](const char* field, nlohmann::json value, const std::string& name) {
    auto document = shipped_tokenizer();
    document[field] = std::move(value);
    const std::string error = error_of(document);
    CAPTURE(error);
    CHECK(error.find(name) != std::string::npos);
    CHECK(error.find("--ids") != std::string::npos);
  };
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const nlohmann::json split = {{"type", "Split"}, {"pattern", {{"Regex", "x"}}}, {"behavior", "Isolated"}};
  rejects("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}}, "Metaspace");
  rejects("pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}}, "Split");
  rejects("pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", nlohmann::json::array()}}, "ByteLevel");
  rejects("pre_tokenizer", nullptr, "pre-tokeniser");
  rejects("normalizer", {{"type", "NFC"}}, "NFC");
  rejects("model", {{"type", "Unigram"}}, "Unigram");
  rejects("model", {{"type", "BPE"}, {"vocab", {{"a", 0}}}, {"merges", {"a b"}}}, "not in the vocabulary");
  rejects("model", {{"type", "BPE"}, {"vocab", {{"a", 1 << 30}}}, {"merges", {}}}, "1073741824");
  rejects("model", {{"type", 3}}, "tokenizer.json");
  rejects("model", {{"type", "BPE"}, {"vocab", {{"a", 0}}}}, "merges");
}

TEST_CASE("tales: text that cannot be tokenised is an error") {
  const Tokenizer tokenizer(tales_folder / "base");
  for (const char* broken : {"\x80", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"})
    CHECK_THROWS_AS((void)tokenizer.encode(broken), graft::FileError);
  auto document = shipped_tokenizer();
  document["model"]["vocab"].erase("Q");
  CHECK_THROWS_AS((void)from(document).encode("Queries"), graft::FileError);
  document = shipped_tokenizer();
  document["added_tokens"] = {{{"id", 1024}, {"content", "<mask>"}, {"lstrip", true}}};
  CHECK(from(document).encode("no such token").size() > 3);
  CHECK_THROWS_AS((void)from(document).encode("a <mask>"), graft::FileError);
  CHECK_THROWS_AS(Tokenizer("no such folder"), graft::FileError);
}
