#include "../perplexity.hpp"

#include <doctest/doctest.h>

#include <numeric>
#include <stdexcept>

TEST_CASE("tales: a text has whole windows and one token behind each") {
  CHECK(tales::whole_windows(0) == 0);
  CHECK(tales::whole_windows(128) == 0);
  CHECK(tales::whole_windows(129) == 1);
  CHECK(tales::whole_windows(256) == 1);
  CHECK(tales::whole_windows(257) == 2);
  CHECK(tales::whole_windows(23881) == 186);
}

TEST_CASE("tales: the loss of a token is -log of its softmax, whatever is added to the logits") {
  // softmax(log 1, log 2, log 5) = 1/8, 2/8, 5/8
  const std::vector<float> logits{0.0f, std::log(2.0f), std::log(5.0f)};
  CHECK(tales::token_loss(logits, 0) == doctest::Approx(std::log(8.0)).epsilon(1e-7));
  CHECK(tales::token_loss(logits, 2) == doctest::Approx(std::log(1.6)).epsilon(1e-7));
  const std::vector<float> far{1024.0f, 1024.0f, -1024.0f};
  CHECK(tales::token_loss(far, 1) == doctest::Approx(std::log(2.0)).epsilon(1e-12));
  CHECK(tales::token_loss(far, 2) == doctest::Approx(2048 + std::log(2.0)).epsilon(1e-12));
}

TEST_CASE("tales: perplexity is exp of the mean over tokens") {
  CHECK(tales::perplexity(std::vector<double>{128 * std::log(10.0), 128 * std::log(40.0)}) ==
        doctest::Approx(20).epsilon(1e-12));
}

TEST_CASE("tales: work is shared out once, over any number of threads") {
  for (const unsigned threads : {1u, 2u, 7u}) {
    std::vector<int> done(101, 0);
    tales::share_out(done.size(), 8, threads, [&] {
      return [&](std::size_t first, std::size_t count) {
        for (std::size_t i = first; i < first + count; ++i) ++done[i];
      };
    });
    CHECK(done == std::vector<int>(101, 1));
  }
  const auto throwing = [] { return [](std::size_t, std::size_t) { throw std::runtime_error("chunk"); }; };
  CHECK_THROWS_WITH(tales::share_out(10, 1, 3, throwing), "chunk");
}
