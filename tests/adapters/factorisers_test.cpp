#include <graft/adapters/factorisers.hpp>

#include <doctest/doctest.h>

TEST_CASE("an integer is a rank, a number with a decimal point a share of the energy") {
  const graft::RankOrShare rank = 8, share = 0.9, all = 1.0;
  CHECK(rank.rank == 8);
  CHECK(share.rank == 0);
  CHECK(share.share == 0.9);
  CHECK(all.rank == 0);
  CHECK(all.share == 1);
}

TEST_CASE("without graft/factorise.hpp what factorises is an error that names the include") {
  const auto* const before = std::exchange(graft::detail::factorisers, nullptr);
  std::string text;
  try {
    (void)graft::detail::need_factorisers("init_lora_weights \"pissa\"");
  } catch (const graft::ConfigError& error) {
    text = error.what();
  }
  graft::detail::factorisers = before;
  CHECK(text.find("init_lora_weights \"pissa\"") != text.npos);
  CHECK(text.find("graft/factorise.hpp") != text.npos);
}
