#include "graft/io/atomic_file.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

#include <string>

#include "temporary_directory.hpp"

using graft::AtomicFile;
using graft::FileError;

TEST_CASE("a file appears at commit, whole, and nothing is left beside it") {
  const TemporaryDirectory directory;
  {
    AtomicFile file(directory / "file");
    file.write("hello ");
    file.write("world");
    CHECK_FALSE(std::filesystem::exists(directory / "file"));
    file.commit();
  }
  CHECK(read_text(directory / "file") == "hello world");
  CHECK(directory.file_count() == 1);
}

TEST_CASE("without commit the older file stays, and no temporary one") {
  const TemporaryDirectory directory;
  write_text(directory / "file", "old");
  {
    AtomicFile file(directory / "file");
    file.write("new");
  }
  CHECK(read_text(directory / "file") == "old");
  CHECK(directory.file_count() == 1);
}

TEST_CASE("a file that is replaced keeps its permissions") {
  const TemporaryDirectory directory;
  using std::filesystem::perms;
  write_text(directory / "file", "old");
  std::filesystem::permissions(directory / "file",
                               perms::owner_read | perms::owner_write | perms::others_read);
  AtomicFile file(directory / "file");
  file.write("new");
  file.commit();
  CHECK(read_text(directory / "file") == "new");
  CHECK(std::filesystem::status(directory / "file").permissions() ==
        (perms::owner_read | perms::owner_write | perms::others_read));
}

TEST_CASE("a full disk is a FileError, and leaves everything as it was") {
  const TemporaryDirectory directory;
  write_text(directory / "file", "old");
  ::signal(SIGXFSZ, SIG_IGN);
  ::rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const ::rlimit small{1000, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto is_refused = [&](std::size_t bytes) {
    try {
      AtomicFile file(directory / "file");
      file.write(std::string(bytes, 'x'));
      file.commit();
    } catch (const FileError&) {
      return true;
    }
    return false;
  };
  const bool is_refused_at_commit = is_refused(2'000);  // which the stream's buffer still holds
  const bool is_refused_at_write = is_refused(100'000);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(is_refused_at_commit);
  CHECK(is_refused_at_write);
  CHECK(read_text(directory / "file") == "old");
  CHECK(directory.file_count() == 1);
}

TEST_CASE("a place that cannot be written to is a FileError") {
  const TemporaryDirectory directory;
  CHECK_THROWS_AS(AtomicFile(directory / "missing/file"), FileError);
  CHECK_THROWS_AS(AtomicFile{directory.path()}, FileError);
  CHECK(directory.file_count() == 0);
}
