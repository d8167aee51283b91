#include "../gpt2_split.hpp"

#include <doctest/doctest.h>

#include <array>

#include "support.hpp"

using tales::CharacterClass;

TEST_CASE("tales: text splits where tokenizers' ByteLevel splits it") {
  const auto file = tales_test::read_json(tales_test::tales_folder / "tests" / "tokenizer_cases.json");
  for (std::size_t i = 0; i < file["texts"].size(); ++i) {
    CAPTURE(i);
    const auto text = file["texts"][i].get<std::string>();
    std::vector<std::size_t> lengths;
    std::string together;
    tales::gpt2_split(text, [&](std::string_view piece) {
      lengths.push_back(piece.size());
      together += piece;
    });
    CHECK(lengths == file["pieces"][i].get<std::vector<std::size_t>>());
    CHECK(together == text);
  }
}

TEST_CASE("tales: the classes hold as many code points as in tokenizers 0.23") {
  std::array<int, 4> counts{};
  for (char32_t c = 0; c < 0x110000; ++c) ++counts[std::size_t(tales::class_of(c))];
  CHECK(counts[std::size_t(CharacterClass::letter)] == 141028);
  CHECK(counts[std::size_t(CharacterClass::number)] == 1911);
  CHECK(counts[std::size_t(CharacterClass::space)] == 25);
}
