#include <graft/adapters/kept.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

using graft::detail::Kept;

TEST_CASE("it is made once for every stamp, from what was made before") {
  const Kept<int> kept;
  int times = 0;
  const auto add = [&](int amount) {
    return [&times, amount](int& value) {
      ++times;
      value += amount;
    };
  };
  CHECK(kept.at(1, add(5)) == 5);
  CHECK(kept.at(1, add(7)) == 5);
  CHECK(times == 1);
  CHECK(kept.at(9, add(7)) == 12);
  CHECK(kept.at(9, add(1)) == 12);
  CHECK(kept.at(1, add(1)) == 13);
  CHECK(times == 3);
  CHECK(&kept.at(1, add(1)) == &kept.at(1, add(1)));
}

TEST_CASE("a copy starts empty") {
  const Kept<int> kept;
  CHECK(kept.at(1, [](int& value) { value = 3; }) == 3);
  const Kept<int> copy(kept);
  CHECK(copy.at(1, [](int& value) { value += 4; }) == 4);
  CHECK(kept.at(1, [](int&) { FAIL("it was made already"); }) == 3);
}

TEST_CASE("what failed is made anew, at whatever stamp it is asked for next") {
  const Kept<int> kept;
  CHECK(kept.at(1, [](int& value) { value = 3; }) == 3);
  const auto fails = [](int& value) {
    value = 99;
    throw std::runtime_error("no");
  };
  CHECK_THROWS_AS(kept.at(2, fails), std::runtime_error);
  CHECK(kept.at(1, [](int& value) { value = 4; }) == 4);  // the values of stamp 1 are back, what was made of them is not
  CHECK_THROWS_AS(kept.at(2, fails), std::runtime_error);
  CHECK(kept.at(2, [](int& value) { value = 5; }) == 5);
}

TEST_CASE("of many threads one makes it, and all see it whole") {
  for (std::uint64_t stamp = 1; stamp <= 50; ++stamp) {
    const Kept<std::vector<int>> kept;
    std::atomic<int> times = 0;
    std::vector<char> right(4, 0);
    std::vector<std::thread> threads;
    for (char& mine : right)
      threads.emplace_back([&] {
        mine = kept.at(stamp, [&](std::vector<int>& value) {
          ++times;
          value.assign(100, int(stamp));
        }) == std::vector<int>(100, int(stamp));
      });
    for (std::thread& thread : threads) thread.join();
    CHECK(right == std::vector<char>(4, 1));
    CHECK(times == 1);
  }
}
