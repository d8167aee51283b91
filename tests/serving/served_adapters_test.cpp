#include <graft/serving/served_adapters.hpp>

#include <doctest/doctest.h>

#include "support/trained.hpp"

namespace {
struct Net {
  graft::Adaptable<graft::Linear<>> p{7, 13};
  GRAFT_MODULE(p)
};
graft::detail::AdapterSource source(int r) {
  Net net;
  const graft::LoraConfig config{.r = r, .target_modules = {"p"}};
  trained::inject(config, net, "default");
  graft::detail::AdapterSource made;
  made.config = config;
  made.weights = graft::get_peft_model_state_dict(net).clone();
  return made;
}
}  // namespace

TEST_CASE("served adapters: a lower budget drops at once, and one that is replaced counts with its new size") {
  Net net;
  graft::detail::ServedAdapters served(graft::sites_of(net), {});
  served.add("a", source(1));
  served.add("b", source(2));
  (void)served.acquire("a");
  (void)served.acquire("b");
  CHECK(served.metrics().bytes_resident == 3 * 80);
  served.set_byte_budget(200);
  CHECK(served.metrics().bytes_resident == 160);
  CHECK_FALSE(served.look_up("a")->is_resident);
  served.replace("b", 2, source(1));
  CHECK(served.metrics().bytes_resident == 80);
  CHECK(served.look_up("b")->generation == 3);
  CHECK_THROWS_AS(served.replace("b", 3, source(3)), graft::ServeError);  // 240 bytes never fit
  served.replace("a", 1, source(2));  // was not in memory, and is not
  CHECK(served.metrics().bytes_resident == 80);
}

TEST_CASE("served adapters: a weight of 0 is left out, one that is not finite refused") {
  Net net;
  graft::detail::ServedAdapters served(graft::sites_of(net), {});
  served.add("a", source(1));
  CHECK(served.select({{"a", 0}}).list().empty());
  CHECK_FALSE(served.select({{"a", 0}}).follows_active());
  CHECK_THROWS_AS((void)served.select({{"a", 1.0 / 0.0}}), graft::AdapterError);
  CHECK_THROWS_AS((void)served.select({{"b", 0}}), graft::ServeError);
}
