#include "graft/io/mapped_file.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <string>

#include "temporary_directory.hpp"

using graft::FileError;
using graft::MappedFile;

namespace {
std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}
}  // namespace

TEST_CASE("a mapping is private: writes to it stay in memory") {
  const TemporaryDirectory directory;
  write_text(directory / "file", "hello");
  const auto file = MappedFile::open(directory / "file");
  const auto other = MappedFile::open(directory / "file");
  CHECK(text_of(*file) == "hello");
  const_cast<std::byte*>(file->bytes().data())[0] = std::byte{'J'};
  CHECK(text_of(*file) == "Jello");
  CHECK(text_of(*other) == "hello");
  CHECK(read_text(directory / "file") == "hello");
}

TEST_CASE("a mapping keeps the old bytes when the file is replaced; a copy when it is overwritten") {
  const TemporaryDirectory directory;
  write_text(directory / "file", "old");
  const auto mapping = MappedFile::open(directory / "file");
  const auto copy = MappedFile::copy(directory / "file");
  write_text(directory / "new", "new");
  std::filesystem::rename(directory / "new", directory / "file");
  CHECK(text_of(*mapping) == "old");
  CHECK(read_text(directory / "file") == "new");
  const auto second = MappedFile::copy(directory / "file");
  write_text(directory / "file", "xxx");
  CHECK(text_of(*second) == "new");
  CHECK(text_of(*copy) == "old");
}

TEST_CASE("what is no readable file is a FileError that names it") {
  const TemporaryDirectory directory;
  write_text(directory / "empty", "");
  CHECK(MappedFile::open(directory / "empty")->bytes().empty());
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
  const auto problem = [&](const std::string& name) -> std::string {
    try {
      (void)MappedFile::open(directory / name);
    } catch (const FileError& error) {
      return error.problem;
    }
    return "";
  };
  CHECK(problem("missing") == "'" + (directory / "missing").string() + "' does not exist");
  CHECK(problem("") == "'" + (directory / "").string() + "' is a directory");
  CHECK(problem("pipe") == "'" + (directory / "pipe").string() + "' is not a regular file");
  CHECK_THROWS_AS((void)MappedFile::open(directory / "empty/inside"), FileError);
}
