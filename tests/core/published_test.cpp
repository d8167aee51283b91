#include <doctest/doctest.h>

#include <graft/core/published.hpp>
#include <thread>
#include <vector>

using graft::Published;

namespace {
/// Says when it dies, and is wrong for whoever looks afterwards.
struct Watched {
  explicit Watched(int number, int* count = nullptr) : first(number), second(number), alive(count) {
    if (alive) ++*alive;
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  ~Watched() {
    first = -1;
    second = -2;
    if (alive) --*alive;
  }
  int first, second;
  int* alive;
};
}  // namespace

TEST_CASE("a reader sees the value that was current when it came; the old one goes when it is not pinned") {
  int alive = 0;
  {
    Published<Watched> value(std::make_shared<Watched>(1, &alive));
    CHECK(value.read()->first == 1);
    const std::shared_ptr<Watched> pinned = value.pin();
    CHECK(value.publish(std::make_shared<Watched>(2, &alive)) == pinned);
    CHECK(value.read()->first == 2);
    CHECK(pinned->first == 1);
    CHECK(alive == 2);
    value.publish(std::make_shared<Watched>(3, &alive));
    CHECK(alive == 2);  // 1, which is pinned, and 3
    CHECK(value.own()->first == 3);
  }
  CHECK(alive == 0);
}

TEST_CASE("a writer waits for a reader, and goes on when it has left") {
  Published<Watched> value(std::make_shared<Watched>(1));
  std::atomic<bool> is_reading{false}, may_leave{false}, is_published{false};
  bool saw_early = false;
  int seen = 0;
  std::thread reader([&] {
    const auto here = value.read();
    is_reading = true;
    while (!may_leave) std::this_thread::yield();
    saw_early = is_published;
    seen = here->first;
  });
  while (!is_reading) std::this_thread::yield();
  std::thread writer([&] {
    value.publish(std::make_shared<Watched>(2));
    is_published = true;
  });
  while (value.read()->first != 2) std::this_thread::yield();  // later readers are not kept waiting
  may_leave = true;
  reader.join();
  writer.join();
  CHECK_FALSE(saw_early);
  CHECK(seen == 1);
}

TEST_CASE("any number of readers and two writers: nobody sees a value that is gone or half there") {
  Published<Watched> value(std::make_shared<Watched>(0));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i)
    readers.emplace_back([&] {
      while (!stop) {
        const auto here = value.read();
        const int first = here->first;
        if (first < 0 || here->second != first) ++wrong;
      }
    });
  const auto write = [&](int begin) {
    for (int i = begin; i < begin + 300; ++i) value.publish(std::make_shared<Watched>(i));
  };
  std::thread other(write, 1000);
  write(1);
  other.join();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
}
