#include "../progress.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "../left_out.hpp"
#include "../options.hpp"
#include "../table.hpp"
#include "support.hpp"

TEST_CASE("tales: where there is no terminal, progress is one plain line") {
  std::FILE* file = std::tmpfile();
  {
    tales::Progress progress(file, "LoRA r=8", 16, 128);
    progress.advance(8);
    progress.advance(8);
  }
  std::rewind(file);
  std::string text(500, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  CHECK(text.starts_with("evaluated LoRA r=8: 16 windows in "));
  CHECK(text.ends_with(" tokens/s\n"));
  CHECK(text.find_first_of("\r\x1b") == std::string::npos);
}

TEST_CASE("tales: columns are as wide as their widest cell") {
  tales::Table table;
  table.add({"name", "a"});
  table.add({"x", "1,234"});
  CHECK(table.text() == "  name       a\n  x      1,234\n");
  CHECK(tales::grouped(7) == "7");
  CHECK(tales::grouped(999) == "999");
  CHECK(tales::grouped(54272) == "54,272");
  CHECK(tales::grouped(1234567) == "1,234,567");
}

TEST_CASE("tales: files of ids hold decimal numbers, or a JSON list of them") {
  const tales_test::TemporaryFolder folder;
  const auto read = [&](const char* text) {
    folder.write("ids", std::string_view(text));
    return tales::read_ids(folder.path() / "ids");
  };
  CHECK(read("1 2\n30\t4") == std::vector<int>{1, 2, 30, 4});
  CHECK(read("[5, 6,7]\n") == std::vector<int>{5, 6, 7});
  CHECK(read("").empty());
  CHECK_THROWS_AS(read("1 -2"), graft::FileError);
  CHECK_THROWS_AS(read("1 x"), graft::FileError);
  CHECK_THROWS_AS(read("99999999999"), graft::FileError);
  CHECK_THROWS_AS(tales::read_ids(folder.path() / "none"), graft::FileError);
}

TEST_CASE("tales: options") {
  const auto parse = [](std::vector<std::string> words, int& exit_code) {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    return tales::parse(int(arguments.size()), arguments.data(), exit_code);
  };
  int exit_code = 0;
  auto options = parse({"demo", "--quick"}, exit_code);
  REQUIRE(options);
  CHECK(options->is_shipped());
  CHECK(options->windows == 8);
  CHECK(options->tokens == 12);
  CHECK(options->all_tokens == 40);
  options = parse({"demo", "--adapter", "/", "--adapter", "/", "--windows", "3", "--tokens", "5"}, exit_code);
  REQUIRE(options);
  CHECK(options->adapters.size() == 2);
  CHECK(!options->is_shipped());
  CHECK(options->windows == 3);
  CHECK(options->tokens == 5);
  CHECK(options->all_tokens == 5);
}

TEST_CASE("tales: what takes long says so in plain lines, and not once more at its end") {
  std::FILE* file = std::tmpfile();
  {
    tales::Progress progress(file, "base", 3, 128, std::chrono::seconds(0));
    progress.advance(2);
    progress.advance(1);
  }
  std::rewind(file);
  std::string text(500, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  CHECK(text.starts_with("evaluating base:    2/3  "));
  CHECK(text.find("3/3") == std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') == 2);
}

TEST_CASE("tales: what a short run leaves out is said") {
  CHECK(tales::left_out({{"windows of Austen", 256, 256}, {"tokens", 40, 40}}).empty());
  CHECK(tales::left_out({{"windows of Austen", 8, 256}, {"windows of Opticks", 186, 186}, {"tokens", 12, 40}}) ==
        "left out: 248 of 256 windows of Austen, 28 of 40 tokens");
}
