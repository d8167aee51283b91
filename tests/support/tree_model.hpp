#pragma once

#include <graft/graft.hpp>
#include <string>
#include <vector>

/// A tree with numbered layers, one list of them at the top level, names that end alike, and layers without
/// room. Real PEFT was asked about the same tree.
namespace tree {

using Linear = graft::Linear<>;
using Site = graft::Adaptable<Linear>;

struct Attention {
  Site q_proj{3, 3}, k_proj{3, 3};
  GRAFT_MODULE(q_proj, k_proj)
};
struct Mlp {
  Site up{3, 4}, w0{3, 3}, xw0{3, 3};
  GRAFT_MODULE(up, w0, xw0)
};
struct Layer {
  Attention self_attn;
  Mlp mlp;
  GRAFT_MODULE(self_attn, mlp)
};
struct Inner {
  graft::Adaptable<graft::Embedding<>> embed_tokens{5, 3};
  std::vector<Layer> layers{3};
  graft::LayerNorm<> norm{3};
  GRAFT_MODULE(embed_tokens, layers, norm)
};
struct Net {
  Inner model;
  std::vector<Mlp> blocks{2};
  Site head{3, 3}, subhead{3, 3};
  GRAFT_MODULE(model, blocks, head, subhead)
};

/// Two sites and two layers without room.
struct Partly {
  Site first{3, 3};
  Linear plain{3, 3};
  graft::LayerNorm<> norm{3};
  graft::Adapted<Linear, graft::Ia3> scaled{3, 3};
  auto operator()(const auto& x) const { return scaled(norm(plain(first(x)))); }
  GRAFT_MODULE(first, plain, norm, scaled)
};

/// "q k:rank:alpha": the matched paths, with rank and alpha where they are not the config's 8 and 16.
template <class M>
std::string matched(const M& model, const std::string& adapter = "default") {
  std::string all;
  const graft::ModelSites sites = graft::sites_of(model);
  for (const auto& site : sites.sites) {
    const graft::SiteTable* table = site->table();
    const graft::SiteEntry* entry = table ? table->find(adapter) : nullptr;
    if (!entry || !entry->state()) continue;
    all += (all.empty() ? "" : " ") + site->path();
    const double alpha = entry->state()->scaling() * double(entry->state()->rank());
    if (entry->state()->is_feedforward()) all += ":ff";
    if (entry->state()->rank() != 0 && (entry->state()->rank() != 8 || alpha != 16))
      all += ':' + std::to_string(entry->state()->rank()) + ':' + std::to_string(int(alpha));
  }
  return all;
}
template <class M>
bool has_copy(const M& model, std::string_view path) {
  const graft::ModelSites sites = graft::sites_of(model);
  for (const auto& site : sites.sites)
    if (const graft::SiteTable* table = site->table(); table && site->path() == path)
      for (const graft::SiteEntry& entry : table->entries)
        if (entry.copy()) return true;
  return false;
}
inline bool mentions(const std::vector<std::string>& texts, std::string_view part) {
  for (const std::string& text : texts)
    if (text.find(part) != std::string::npos) return true;
  return false;
}

}  // namespace tree
