#pragma once

#include <graft/graft.hpp>

#include <vector>

/// What the tests of loading load: a target and an embedding, a head to be saved whole, and a bias outside of sites.
namespace loaded {

struct Net {
  graft::Adaptable<graft::Embedding<>> embed{5, 3};
  graft::Adaptable<graft::Linear<>> p{3, 3}, head{3, 2};
  graft::LayerNorm<> norm{2};
  auto operator()(const auto& ids) const { return norm(head(p(embed(ids)))); }
  GRAFT_MODULE(embed, p, head, norm)
};
inline const graft::LoraConfig config{
    .r = 2, .bias = graft::Bias::all, .target_modules = {"p", "embed"}, .modules_to_save = {"head"}};
inline const std::vector<int> ids{0, 4, 2};

}  // namespace loaded
