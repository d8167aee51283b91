#include <graft/io/hotswap_directory.hpp>

#include <doctest/doctest.h>

#include "io/temporary_directory.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

namespace {
struct Net {
  graft::Adaptable<graft::Linear<>> p{7, 13}, q{13, 5};
  auto operator()(const auto& x) const { return q(p(x)); }
  GRAFT_MODULE(p, q)
};
Net base() {
  Net net;
  graft::initialise(net, 3);
  return net;
}
graft::LoraConfig config(int r) { return {.r = r, .lora_alpha = 7, .target_modules = {"p", "q"}}; }
}  // namespace

TEST_CASE("hotswap: from a directory, all or nothing") {
  const TemporaryDirectory folder;
  for (int r : {3, 4}) {
    Net net = base();
    trained::inject(config(r), net, "default", r);
    graft::save_pretrained(net, folder / std::to_string(r));
  }
  Net net = base(), fresh = base();
  graft::load_adapter(net, folder / "3");
  graft::load_adapter(fresh, folder / "4");
  const graft::Matrix<float> x = awkward::rows<float>(4, 7), before = net(x);
  CHECK(graft::hotswap_adapter(net, folder / "4").loaded.size() == 4);
  CHECK_FALSE(results::same_values(net(x), before));
  CHECK(results::same_bits(net(x), fresh(x)));
  CHECK(results::everything(net) == results::everything(fresh));

  std::filesystem::remove(folder / "3" / "adapter_model.safetensors");
  std::filesystem::copy_file(folder / "4" / "adapter_model.safetensors", folder / "3" / "adapter_model.safetensors");
  const std::string whole = results::everything(net);
  CHECK_THROWS_AS(graft::hotswap_adapter(net, folder / "3"), graft::StateDictError);  // r = 3 and weights of r = 4
  CHECK_THROWS_AS(graft::hotswap_adapter(net, folder / "none"), graft::FileError);
  CHECK_THROWS_AS(graft::hotswap_adapter(net, folder / "4", "other"), graft::AdapterError);
  CHECK(results::everything(net) == whole);
}
