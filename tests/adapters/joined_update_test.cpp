#include <graft/adapters/joined_update.hpp>

#include <array>
#include <string>
#include <vector>

#include "support/cutting_host.hpp"
#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;
using support::CuttingHost;
namespace kernels = graft::kernels;

namespace {

constexpr Index in = 31, out = 301;  // several panels of y, the last of them narrower

/// y += scale * ((x A^T) * e) B^T + scale * beta, by a call of the kernel of its own.
template <class T>
void add_alone(const kernels::LowRankTerm<T>& term, const Matrix<T>& x, Matrix<T>& y) {
  std::vector<T> scratch(std::size_t(kernels::low_rank_scratch(x.rows(), in, out, term.r)));
  const Matrix<T> before = y;
  kernels::low_rank_update<T>(x.rows(), in, out, term.r, x.data(), in, term.A, term.B, term.e, term.scale, term.beta, y.data(), out,
                              scratch.data());
  REQUIRE(!results::same_values(y, before));
}

/// An adapter of `count` terms, which says what it was asked for, or of none, whose update is x's first columns.
template <class T>
class Probe final : public graft::AdapterState<T> {
 public:
  Probe(Index r, double seed, Index count = 1) : count_(count) {
    for (Index i = 0; i < count; ++i) {
      factors_.push_back(awkward::rows<T>(r, in, seed + double(i)));
      factors_.push_back(awkward::rows<T>(out, r, seed + double(i) + 0.5));
    }
  }
  bool has_columns = false, is_silent = false;
  mutable std::vector<Index> asked{}, updated{};

  [[nodiscard]] graft::PeftType type() const override { return graft::PeftType::lora; }
  [[nodiscard]] std::unique_ptr<graft::AnyAdapterState> clone() const override { return std::make_unique<Probe>(*this); }
  [[nodiscard]] std::vector<graft::AdapterParameter> parameters() override { return {}; }
  void initialise(std::uint64_t, std::string_view) override {}
  [[nodiscard]] bool is_meta() const override { return false; }
  [[nodiscard]] bool reads_base() const override { return has_columns; }
  [[nodiscard]] bool has_update() const override { return !is_silent; }
  [[nodiscard]] Index terms_of_update(Index n, Index columns, double weight, const graft::BaseWeight<T>&,
                                      kernels::LowRankTerm<T>* terms) const override {
    CHECK(columns == out);
    asked.push_back(n);
    for (Index i = 0; i < count_; ++i) terms[i] = term(i, weight);
    return count_;
  }
  [[nodiscard]] const T* columns_of_update(double, const graft::BaseWeight<T>&, T* memory, graft::Workspace*) const override {
    if (!has_columns) return nullptr;
    for (Index o = 0; o < out; ++o) memory[o] = factor(o);
    return memory;
  }
  void update(const graft::SiteInput<T>& x, graft::Out<T> y, double weight, const graft::BaseWeight<T>&,
              graft::Workspace*) const override {
    updated.push_back(y.rows());
    y.leftCols(in) += T(weight) * x.rows;
  }

  [[nodiscard]] static T factor(Index column) { return T(0.7) + T(awkward::value(column, 3)) / 4; }
  /// What JoinedUpdate must do of it, one by one.
  void add_to(Matrix<T>& y, const Matrix<T>& x, double weight) const {
    if (is_silent) return;
    if (count_ == 0) y.leftCols(in) += T(weight) * x;
    for (Index i = 0; i < count_; ++i) add_alone(term(i, weight), x, y);
    if (!has_columns) return;
    for (Index i = 0; i < y.rows(); ++i)
      for (Index o = 0; o < out; ++o) y(i, o) *= factor(o);
  }

 private:
  [[nodiscard]] kernels::LowRankTerm<T> term(Index i, double weight) const {
    const Matrix<T>&a = factors_[std::size_t(2 * i)], &b = factors_[std::size_t(2 * i + 1)];
    return {a.rows(), a.data(), nullptr, nullptr, T(weight), nullptr, b.data()};
  }
  Index count_;
  std::vector<Matrix<T>> factors_;
};

template <class T>
double weight_of(std::size_t i) {
  return i % 2 ? -0.75 : 1;
}
template <class T>
Matrix<T> joined(const std::vector<Probe<T>>& probes, const Matrix<T>& x, Matrix<T> y, graft::Workspace* workspace) {
  const graft::Linear<T> layer(in, out);
  const graft::BaseWeight<T> base = graft::detail::base_weight_of(layer);
  graft::SiteInput<T> input;
  new (&input.rows) graft::In<T>(graft::in(x));
  graft::detail::JoinedUpdate<T> all(input, graft::out(y), base, workspace);
  for (std::size_t i = 0; i < probes.size(); ++i) all.add(probes[i], weight_of<T>(i));
  all.finish();
  return y;
}
template <class T>
void check_joined(const std::vector<Probe<T>>& probes, Index n) {
  CAPTURE(n);
  CAPTURE(probes.size());
  const Matrix<T> x = awkward::rows<T>(n, in, 1), before = awkward::rows<T>(n, out, 2);
  Matrix<T> expected = before;
  for (std::size_t i = 0; i < probes.size(); ++i) probes[i].add_to(expected, x, weight_of<T>(i));
  graft::Workspace workspace;
  CHECK(results::same_bits(joined(probes, x, before, nullptr), expected));
  CHECK(results::same_bits(joined(probes, x, before, &workspace), expected));
  CuttingHost host(3);
  workspace.set_parallel_for(host);
  CHECK(results::same_bits(joined(probes, x, before, &workspace), expected));
  CHECK(workspace.in_use() == 0);
}
template <class T>
void check_kinds() {
  for (const Index n : {1, 7, 13, 33, 65, 300}) {
    for (const std::size_t count : {1, 2, 3, 8, 9, 17}) {
      std::vector<Probe<T>> probes;
      for (std::size_t i = 0; i < count; ++i) probes.emplace_back(Index(1 + 5 * i % 17), 10 * double(i + 1));
      check_joined(probes, n);
      for (const Probe<T>& probe : probes) CHECK(probe.updated.empty());
    }
    // two terms where one would still fit
    std::vector<Probe<T>> probes;
    for (std::size_t i = 0; i < 10; ++i) probes.emplace_back(3, 10 * double(i + 1), i == 7 ? 2 : 1);
    check_joined(probes, n);
    // in the order in which they are, whatever stands between them
    probes[2].is_silent = true;
    probes[4].has_columns = true;
    probes[9].has_columns = true;
    probes[6] = Probe<T>(0, 1, 0);
    check_joined(probes, n);
    CHECK(probes[2].updated.empty());
    CHECK(probes[6].updated.size() == 3);
  }
}

}  // namespace

TEST_CASE("adapters together have the bits of one after the other, whatever stands between them") {
  check_kinds<float>();
  check_kinds<double>();
}

TEST_CASE("together they are worth a thread; what a piece has to do says how B is read") {
  std::vector<Probe<float>> probes;
  for (int i = 0; i < 8; ++i) probes.emplace_back(8, 10.0 * i);
  const Matrix<> x = awkward::rows<float>(200, in), y = awkward::rows<float>(200, out);
  CuttingHost host(3);
  graft::Workspace workspace;
  workspace.set_parallel_for(host);
  (void)joined({probes[0]}, x, y, &workspace);
  CHECK(host.calls == 0);
  (void)joined(probes, x, y, &workspace);
  CHECK(host.calls == 1);
  CHECK(host.pieces == 3);
  CHECK(probes[0].asked == std::vector<Index>{67});
  (void)joined(probes, x, y, nullptr);
  CHECK(probes[0].asked == std::vector<Index>{67, 200});
  probes[7].has_columns = true;  // factors are made once, and used by all pieces
  (void)joined(probes, x, y, &workspace);
  CHECK(host.calls == 2);
}

namespace {

struct Kind {
  int r;
  double alpha;
  bool is_adalora = false, has_bias = false;
};
constexpr std::array<Kind, 9> kinds{{{3, 7}, {5, 4, true}, {8, -3, false, true}, {1, 2}, {13, 5, true}, {16, 1, false, true}, {4, 9},
                                     {7, 3, false, true}, {2, 5, true}}};
std::string name_of(std::size_t i) { return "a" + std::to_string(i); }
double strength_of(std::size_t i) { return i % 3 == 1 ? 0.5 : 1; }

template <class T>
struct Net {
  graft::Adaptable<graft::Linear<T>> p{in, out};
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};
template <class T>
Net<T> adapted_net() {
  Net<T> net;
  awkward::fill<T>(net.p->weight.untyped(), 1);
  awkward::fill<T>(net.p->bias.untyped(), 2);
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const Kind& kind = kinds[i];
    const double seed = 20 + double(i);
    if (kind.is_adalora)
      trained::inject(graft::AdaLoraConfig{.init_r = kind.r, .lora_alpha = kind.alpha, .target_modules = {"p"}}, net, name_of(i), seed);
    else
      trained::inject(graft::LoraConfig{.r = kind.r, .lora_alpha = kind.alpha, .target_modules = {"p"}, .lora_bias = kind.has_bias}, net,
                      name_of(i), seed);
    graft::set_scale(net, name_of(i), strength_of(i));
  }
  return net;
}

/// The adapters' matrices, as they stand in a state dict: no view of them stays.
template <class T>
struct Factors {
  Matrix<T> a, b, e, beta;
};
template <class T>
std::vector<Factors<T>> factors_of(const Net<T>& net) {
  std::vector<Factors<T>> all;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const graft::StateDict state = graft::get_peft_model_state_dict(net, name_of(i));
    const auto of = [&](const std::string& key, Index rows, Index cols) {
      return Matrix<T>(Eigen::Map<const Matrix<T>>(reinterpret_cast<const T*>(state.at(key).data), rows, cols));
    };
    const Kind& kind = kinds[i];
    const std::string suffix = kind.is_adalora ? "" : ".weight";
    Factors<T> one{of("p.lora_A" + suffix, kind.r, in), of("p.lora_B" + suffix, out, kind.r), {}, {}};
    if (kind.is_adalora) one.e = of("p.lora_E", kind.r, 1);
    if (kind.has_bias) one.beta = of("p.lora_B.bias", 1, out);
    all.push_back(std::move(one));
  }
  return all;
}
using Wanted = std::vector<std::pair<std::size_t, double>>;

template <class T>
Matrix<T> one_by_one(const std::vector<Factors<T>>& factors, const Wanted& wanted, const Matrix<T>& x, Matrix<T> y) {
  for (const auto& [i, selected] : wanted) {
    const Kind& kind = kinds[i];
    const Factors<T>& f = factors[i];
    const double weight = selected * strength_of(i);
    const T scale = T(kind.is_adalora ? weight * kind.alpha / (kind.r + 1e-5) : weight * (kind.alpha / kind.r));
    add_alone<T>({kind.r, f.a.data(), nullptr, f.e.size() ? f.e.data() : nullptr, scale, f.beta.size() ? f.beta.data() : nullptr, f.b.data()},
                 x, y);
  }
  return y;
}
template <class T>
void check_site() {
  Net<T> net = adapted_net<T>();
  const std::vector<Factors<T>> factors = factors_of(net);
  for (const bool is_viewed : {false, true}) {
    std::vector<graft::ParameterView> held;
    for (std::size_t i = 0; is_viewed && i < kinds.size(); ++i) {
      held.push_back(net.p.parameter(name_of(i), "lora_B"));
      REQUIRE(held.back().template view<T>().rows() == out);
    }
    for (const Index n : {1, 7, 13, 33, 65})
      for (const std::size_t count : {2, 3, 9}) {
        CAPTURE(n);
        CAPTURE(count);
        const Matrix<T> x = awkward::rows<T>(n, in);
        graft::set_adapter(net, std::vector<std::string>{});
        const Matrix<T> base = net(x);
        Wanted all, weighted;
        std::vector<std::string> names;
        std::vector<graft::NamedWeight> selection;
        for (std::size_t i = 0; i < count; ++i) {
          const std::size_t other = count - 1 - i;
          all.emplace_back(i, 1);
          names.push_back(name_of(i));
          weighted.emplace_back(other, i % 2 ? -0.75 : 1.5);
          selection.push_back({name_of(other), weighted.back().second});
        }
        graft::set_adapter(net, names);
        CHECK(results::same_bits(net(x), one_by_one(factors, all, x, base)));

        graft::Batch batch;
        batch.add(n).add(n, graft::select(net, selection)).add(n, graft::base_only()).add(n, graft::select(net, {{"a2"}, {"a0", 0.5}}));
        const Matrix<T> many = awkward::rows<T>(4 * n, in, 5);
        graft::Batch of_base;
        of_base.add(4 * n, graft::base_only());
        Matrix<T> expected = net(of_base.input(many)).value();
        const auto expect = [&](Index part, const Wanted& wanted) {
          expected.middleRows(part * n, n) = one_by_one<T>(factors, wanted, many.middleRows(part * n, n), expected.middleRows(part * n, n));
        };
        expect(0, all);
        expect(1, weighted);
        expect(3, {{2, 1}, {0, 0.5}});
        CHECK(results::same_bits(Matrix<T>(net(batch.input(many)).value()), expected));
      }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("active adapters and those of a mixed batch have the bits of one after the other", T, float, double) {
  check_site<T>();
}

TEST_CASE("DoRA on a layer without a bias scales what stands before it, and is cut too") {
  Net<float> net{graft::Linear<>{in, out, false}};
  awkward::fill<float>(net.p->weight.untyped(), 1);
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"p"}}, net, "first", 20);
  trained::inject(graft::LoraConfig{.r = 40, .lora_alpha = 5, .target_modules = {"p"}, .use_dora = true}, net, "dora", 21);
  trained::inject(graft::LoraConfig{.r = 5, .lora_alpha = -2, .target_modules = {"p"}}, net, "last", 22);
  const auto factors = [&](const std::string& adapter, const std::string& name, Index rows, Index cols) {
    const graft::StateDict state = graft::get_peft_model_state_dict(net, adapter);
    return Matrix<>(Eigen::Map<const Matrix<>>(reinterpret_cast<const float*>(state.at("p." + name + ".weight").data), rows, cols));
  };
  for (const Index n : {1, 13, 65, 300}) {
    CAPTURE(n);
    const Matrix<> x = awkward::rows<float>(n, in);
    for (const double weight : {1.0, 0.5}) {
      const auto run = [&](const std::vector<graft::NamedWeight>& wanted, CuttingHost* host) {
        graft::Batch batch;
        if (host) batch.set_parallel_for(*host);
        batch.add(n, graft::select(net, wanted));
        return Matrix<>(net(batch.input(x)).value());
      };
      graft::Batch one;
      one.add(1, graft::select(net, {{"dora", weight}}));
      Matrix<> c = Matrix<>::Ones(1, out);
      net.p.update(one, Matrix<>(Matrix<>::Zero(1, in)), c);  // of ones and no update, DoRA leaves its factors
      REQUIRE(!results::same_values(c, Matrix<>(Matrix<>::Ones(1, out))));
      Matrix<> expected = run({}, nullptr);
      const auto add = [&](const std::string& name, Index r, float scale) {
        const Matrix<> a = factors(name, "lora_A", r, in), b = factors(name, "lora_B", out, r);
        add_alone<float>({r, a.data(), nullptr, nullptr, scale, nullptr, b.data()}, x, expected);
      };
      add("first", 3, float(7.0 / 3));
      add("dora", 40, float(weight * 5 / 40));
      for (Index i = 0; i < n; ++i)
        for (Index o = 0; o < out; ++o) expected(i, o) *= c(0, o);
      add("last", 5, float(-2.0 / 5));
      const std::vector<graft::NamedWeight> wanted{{"first"}, {"dora", weight}, {"last"}};
      CHECK(results::same_bits(run(wanted, nullptr), expected));
      CuttingHost host(3), only_base(3);
      CHECK(results::same_bits(run(wanted, &host), expected));
      (void)run({}, &only_base);
      CHECK(host.calls == only_base.calls + int(n == 300));
    }
  }
}
