// xtensor containers and adaptors through a model: the same forward, and results of the same kind.
#include <graft/xtensor.hpp>

#if __has_include(<xtensor/containers/xadapt.hpp>)  // 0.26 moved its headers
#include <xtensor/containers/xadapt.hpp>
#else
#include <xtensor/xadapt.hpp>
#endif

#include <iostream>
#include <vector>

struct Model {
  graft::Adaptable<graft::Embedding<>> embed{16, 4};
  graft::RMSNorm<> norm{4};
  graft::Adaptable<graft::Linear<>> linear{4, 3};
  auto operator()(const auto& ids) const { return linear(norm(embed(ids))); }
  GRAFT_MODULE(embed, norm, linear)
};

void show(const char* what, const auto& y, const auto& expected) {
  bool same = y.size() == std::size_t(expected.size());
  for (std::size_t i = 0; same && i < y.size(); ++i) same = y.data()[i] == expected.data()[i];
  std::cout << what << " ->";
  for (const auto size : y.shape()) std::cout << ' ' << size;
  std::cout << (same ? "" : " WRONG") << '\n';
}

int main() {
  Model model;
  graft::initialise(model, 1);
  const graft::LoraConfig config{.r = 2, .target_modules = {"embed", "linear"}, .init_lora_weights = false};
  graft::inject_adapter_in_model(config, model);

  // (batch, sequence) ids become (batch, sequence, features)
  const xt::xtensor<int, 2> ids{{3, 1, 4}, {1, 5, 9}};
  const graft::Matrix<> expected = model(std::vector<int>{3, 1, 4, 1, 5, 9});
  const xt::xtensor<float, 3> y = model(ids);
  show("xt::xtensor<int, 2>", y, expected);
  const xt::xarray<float> z = model(xt::xarray<int>(ids));
  show("xt::xarray<int>", z, expected);

  // activations: containers, and memory that is not xtensor's
  const xt::xtensor<float, 3> x = model.norm(model.embed(ids));
  std::vector<float> memory(x.begin(), x.end());
  show("xt::xtensor<float, 3>", model.linear(x), expected);
  show("xt::xarray<float>", model.linear(xt::xarray<float>(x)), expected);
  show("xt::adapt", model.linear(xt::adapt(memory, std::array<std::size_t, 3>{2, 3, 4})), expected);
  show("xt::eval(a view)", model.linear(xt::eval(x + 0.f)), expected);

  // the engine's door: rows of a batch, into memory that is there
  graft::Batch batch;
  batch.add(6);
  auto result = xt::xtensor<float, 3>::from_shape({2, 3, 3});
  model.linear(x, batch, result);
  show("into y", result, expected);

  // a weight in xtensor memory, borrowed
  xt::xtensor<float, 2> weight = xt::ones<float>({2, 4});
  graft::Linear<float, graft::mapped> head{4, 2, false};
  head.weight.bind(weight.data());
  const xt::xtensor<float, 2> sums = head(xt::xtensor<float, 2>{{1, 2, 3, 4}});
  std::cout << "a borrowed weight: " << sums(0, 0) << ' ' << sums(0, 1) << '\n';
}
