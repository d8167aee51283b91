#include <graft/injection/tied.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include <graft/graft.hpp>

using Strings = std::vector<std::string>;

namespace {

struct Net {
  graft::Adaptable<graft::Embedding<>> embed{5, 3};
  graft::Adaptable<graft::Linear<>> p{3, 3};
  graft::Linear<> head{3, 5, false};
  GRAFT_MODULE(embed, p, head)
};
struct Mapped {
  graft::Adaptable<graft::Linear<float, graft::mapped>> a{3, 3, false}, b{3, 3, false};
  GRAFT_MODULE(a, b)
};

TEST_CASE("tensors on one memory are found, be they at sites or not") {
  Net net;
  const auto storage = [&] { return net.embed->weight.untyped().data(); };
  CHECK(graft::detail::TiedTensors(graft::sites_of(net)).names(storage()) == Strings{"embed.weight"});
  net.head.weight = net.embed->weight.share();
  const graft::detail::TiedTensors tied(graft::sites_of(net));
  CHECK(tied.names(storage()) == Strings{"head.weight", "embed.weight"});
  CHECK(tied.names(net.p->weight.untyped().data()) == Strings{"p.weight"});
  CHECK(tied.names(nullptr).empty());
  CHECK(tied.is_owned(storage()));
}

TEST_CASE("views of somebody's memory belong to none of them") {
  const std::vector<float> memory(9, 1.5f);
  Mapped net;
  net.a->weight.bind(memory.data());
  net.b->weight.bind(memory.data());
  const graft::detail::TiedTensors tied(graft::sites_of(net));
  CHECK(tied.names(memory.data()) == Strings{"a.weight", "b.weight"});
  CHECK_FALSE(tied.is_owned(memory.data()));
}

}  // namespace
