#include <graft/adapters/parameter_lora.hpp>

#include <doctest/doctest.h>

#include <graft/io/narrow_kernels.hpp>

#include "support/expert_model.hpp"
#include "support/results.hpp"

using experts::Net;
using graft::Index;
using graft::Matrix;
using graft::Shape;
using results::same_bits;
using results::same_values;

namespace {

template <class P>
struct OnlyUp {
  graft::Adaptable<P> up{Shape{3, 5, 7}};
  GRAFT_MODULE(up)
};
struct Mapped {
  OnlyUp<graft::Parameter<float, graft::mapped>> experts;
  GRAFT_MODULE(experts)
};
struct Narrow {
  OnlyUp<graft::Parameter<graft::bf16>> experts;
  GRAFT_MODULE(experts)
};

graft::LayerFacts facts(const Shape& shape, bool transposed) {
  graft::LayerFacts own;
  own.kind = graft::LayerKind::parameter;
  own.transposed = transposed;
  own.stack = graft::WeightStack(shape, transposed);
  own.in = own.stack.in;
  own.out = own.stack.out;
  return own;
}
const graft::AdapterPlan plan{.r = 2, .lora_alpha = 3, .path = "m.w", .parameter = "w"};

template <class M>
void inject(M& model, const std::string& name, double seed, int r = 3) {
  (void)graft::inject_adapter_in_model(experts::config(r), model, name);
  experts::train(model, name, seed);
}

/// What PEFT computes: the forward over the sum of every weight and its delta.
template <class T, template <class...> class Up>
Matrix<double> reference(const Net<T, Up>& net, const Matrix<T>& x, const std::string& name, Index r) {
  constexpr bool turned = std::is_same_v<Up<T>, graft::TransposedParameter<T>>;
  const auto& up = net.experts.up;
  const auto& down = net.experts.down;
  const auto of_up = experts::deltas<T>(up.parameter(name, "lora_A"), up.parameter(name, "lora_B"), 3, r, 7.0 / double(r));
  const auto of_down = experts::deltas<T>(down.parameter(name, "lora_A"), down.parameter(name, "lora_B"), 3, r, 7.0 / double(r));
  Matrix<double> y(x.rows(), 7);
  for (Index i = 0; i < x.rows(); ++i) {
    const Index e = net.chosen[std::size_t(i)];
    Matrix<double> w = Eigen::Map<const Matrix<T>>(up->data() + e * 35, turned ? 7 : 5, turned ? 5 : 7).template cast<double>();
    if (turned) w = Matrix<double>(w.transpose());
    const Matrix<double> v = Eigen::Map<const Matrix<T>>(down->data() + e * 35, 7, 5).template cast<double>();
    const Matrix<double> h = ((w + of_up[std::size_t(e)]) * x.row(i).template cast<double>().transpose()).array().tanh();
    y.row(i) = ((v + of_down[std::size_t(e)]) * h).transpose();
  }
  return y;
}

template <class T, template <class...> class Up>
void check_everything() {
  const Matrix<T> x = awkward::rows<T>(10, 7);
  Net<T, Up> net;
  const Matrix<T> base = net(x);
  inject(net, "a", 3);
  inject(net, "b", 4, 2);
  const Matrix<T> b = net(x);
  REQUIRE_FALSE(same_values(b, base));
  CHECK(same_values(b, Matrix<T>(reference(net, x, "b", 2).template cast<T>())));
  graft::set_adapter(net, "a");
  const Matrix<T> a = net(x);
  CHECK(same_values(a, Matrix<T>(reference(net, x, "a", 3).template cast<T>())));
  {
    const auto off = graft::disable_adapter(net);
    CHECK(same_bits(net(x), base));
  }
  graft::set_scale(net, "a", 0);
  CHECK(same_values(net(x), base));
  graft::set_scale(net, "a", 1);
  CHECK(same_bits(net(x), a));

  // rows of a batch: each its own adapters and its own expert
  graft::Batch batch;
  batch.add(2, graft::select(net, {{"b"}})).add(1, graft::base_only()).add(3);
  batch.add(2, graft::select(net, {{"b"}})).add(2, graft::select(net, {{"a"}, {"b"}}));
  const Matrix<T> mixed = net(batch.input(x)).value();
  CHECK(same_bits(Matrix<T>(mixed.topRows(2)), Matrix<T>(b.topRows(2))));
  CHECK(same_bits(Matrix<T>(mixed.row(2)), Matrix<T>(base.row(2))));
  CHECK(same_bits(Matrix<T>(mixed.middleRows(3, 3)), Matrix<T>(a.middleRows(3, 3))));
  CHECK(same_bits(Matrix<T>(mixed.middleRows(6, 2)), Matrix<T>(b.middleRows(6, 2))));
  graft::set_adapter(net, std::vector<std::string>{"a", "b"});
  const Matrix<T> both = net(x);
  CHECK(same_bits(Matrix<T>(mixed.bottomRows(2)), Matrix<T>(both.bottomRows(2))));

  // merged, the same; unmerged by the delta, the base to a rounding, by the backup to the bit
  for (const graft::Unmerge how : {graft::Unmerge::by_delta, graft::Unmerge::backup}) {
    const graft::StateDict before = graft::get_base_model_state_dict(net).clone();
    (void)graft::merge_adapter(net, {}, {.unmerge = how});
    CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) != results::bytes_of(before));
    CHECK(same_values(net(x), both));
    (void)graft::unmerge_adapter(net);
    CHECK(same_values(net(x), both));
    if (how == graft::Unmerge::backup) CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) == results::bytes_of(before));
    else (void)graft::set_base_model_state_dict(net, before);
  }
  Net<T, Up> copy = net;
  (void)graft::merge_and_unload(copy);
  CHECK(same_values(copy(x), both));
  graft::delete_adapter(net, "b");
  CHECK(same_bits(net(x), a));
  graft::delete_adapter(net, "a");
  CHECK(same_bits(net(x), base));
}

}  // namespace

TEST_CASE_TEMPLATE("LoRA of a stack, and of one that stores (experts, in, out)", T, float, double) {
  check_everything<T, graft::Parameter>();
  check_everything<T, graft::TransposedParameter>();
}

TEST_CASE("the engine's doors: a batch, the result's memory, a product that was made elsewhere") {
  Net<float> net;
  const Matrix<float> x = awkward::rows<float>(4, 7);
  const auto& up = net.experts.up;
  const Matrix<float> base = up(x, 1);
  inject(net, "a", 3);
  const Matrix<float> with = up(x, 1);
  REQUIRE_FALSE(same_values(with, base));
  graft::Batch batch;
  batch.add(2, graft::base_only()).add(2);
  Matrix<float> expected = with;
  expected.topRows(2) = base.topRows(2);
  CHECK(same_bits(up(x, batch, 1), expected));
  Matrix<float> y(4, 5);
  up(x, batch, 1, y);
  CHECK(same_bits(y, expected));
  y = base;
  up.update(batch, x, 1, y);
  CHECK(same_bits(y, expected));
  CHECK_THROWS_AS(up.update(batch, x, 3, y), graft::ShapeError);
  CHECK_THROWS_AS((void)up(x), graft::ShapeError);
  CHECK_THROWS_AS((void)up(Matrix<float>(x.leftCols(5)), 1), graft::ShapeError);
}

TEST_CASE("what is written into A and B counts at the next forward") {
  Net<float> net;
  const Matrix<float> x = awkward::rows<float>(10, 7);
  inject(net, "a", 3);
  (void)net(x);
  graft::StateDict saved = graft::get_peft_model_state_dict(net, "a").clone();
  const Matrix<float> before = net(x);
  experts::train(net, "a", 5);
  const Matrix<float> after = net(x);
  CHECK_FALSE(same_values(after, before));
  CHECK(same_values(after, Matrix<float>(reference(net, x, "a", 3).cast<float>())));  // somebody holds a view of B from here on
  net.experts.up.parameter("a", "lora_B").view<float>()(0, 0) += 1;
  CHECK(same_values(net(x), Matrix<float>(reference(net, x, "a", 3).cast<float>())));
  (void)graft::set_peft_model_state_dict(net, saved, "a");
  CHECK(same_values(net(x), before));
}

TEST_CASE("a matrix: A belongs to the last dimension of what is stored, from whichever side it multiplies") {
  const auto shapes = [&](const Shape& shape, bool transposed) {
    graft::detail::ParameterLora<float> state({}, facts(shape, transposed), plan);
    return graft::to_string(state.parameters()[0].data->shape()) + " " + graft::to_string(state.parameters()[1].data->shape());
  };
  CHECK(shapes({5, 7}, false) == "(2, 7) (5, 2)");
  CHECK(shapes({5, 7}, true) == "(2, 7) (5, 2)");
  CHECK(shapes({3, 5, 7}, false) == "(6, 7) (5, 6)");
  CHECK(shapes({3, 5, 7}, true) == "(6, 5) (7, 6)");

  for (const bool transposed : {false, true})
    for (const Shape& shape : {Shape{5, 7}, Shape{3, 5, 7}}) {
      graft::detail::ParameterLora<double> state({}, facts(shape, transposed), plan);
      state.initialise(1, "m.w");
      awkward::fill<double>(*state.parameters()[0].data, 3);
      awkward::fill<double>(*state.parameters()[1].data, 4);
      const Index count = shape.rank() == 3 ? 3 : 1;
      Matrix<double> delta = Matrix<double>::Zero(count * 5, 7);
      for (Index begin = 0; begin < delta.rows(); begin += 4) {  // blocks that do not end where a matrix does
        const Index rows = std::min<Index>(4, delta.rows() - begin);
        state.add_delta(begin, graft::out(delta.data() + begin * 7, rows, 7), 1, nullptr);
      }
      // the update of the rows of a unit matrix is the delta itself
      const Index in = transposed ? 5 : 7, out = transposed ? 7 : 5;
      const Matrix<double> unit = Matrix<double>::Identity(in, in);
      for (Index e = 0; e < count; ++e) {
        Matrix<double> y = Matrix<double>::Zero(in, out);
        graft::SiteInput<double> x{.rows = graft::in(unit)};
        if (count > 1) x.experts = e;
        const graft::Linear<double> none(1, 1);
        state.update(x, graft::out(y), 1, graft::detail::base_weight_of(none), nullptr);
        const Matrix<double> own = delta.middleRows(e * 5, 5);
        CHECK(results::same_values(y, transposed ? own : Matrix<double>(own.transpose())));
        CHECK(own.cwiseAbs().maxCoeff() <= state.delta_bound(1));
      }
      REQUIRE(delta.cwiseAbs().minCoeff() > 0);
    }
}

TEST_CASE("it starts as a linear layer's LoRA does, with the ranks of all experts as B's columns") {
  Net<float> net;
  auto config = experts::config();
  const auto largest = [&](const char* name) { return net.experts.up.parameter("default", name).view<float>().cwiseAbs().maxCoeff(); };
  (void)graft::inject_adapter_in_model(config, net);
  const double a = 1 / std::sqrt(7.0), b = 1 / std::sqrt(9.0);
  CHECK((largest("lora_A") <= a && largest("lora_A") > 0.8 * a));
  CHECK((largest("lora_B") <= b && largest("lora_B") > 0.8 * b));
  config.init_lora_weights = true;
  (void)graft::inject_adapter_in_model(config, net, "default", {.replace = true});
  CHECK((largest("lora_A") <= a && largest("lora_A") > 0.8 * a));
  CHECK(largest("lora_B") == 0);
  config.init_lora_weights = "gaussian";
  (void)graft::inject_adapter_in_model(config, net, "default", {.replace = true});
  CHECK(largest("lora_A") > 0.5);  // 63 normal values of deviation 1/3
  CHECK(largest("lora_B") == 0);
}

TEST_CASE("without memory it is an error to use it") {
  Net<float> net;
  (void)graft::inject_adapter_in_model(experts::config(), net, "a", {.low_cpu_mem_usage = true});
  CHECK_THROWS_AS((void)net(awkward::rows<float>(10, 7)), graft::MetaError);
  CHECK_THROWS_AS((void)graft::merge_adapter(net), graft::MetaError);
}

TEST_CASE("memory that is borrowed is not written, and a narrow stack comes back from a backup") {
  struct Memory {
    std::vector<float> numbers = std::vector<float>(3 * 5 * 7);
  } memory;
  awkward::fill(Eigen::Map<Eigen::VectorXf>(memory.numbers.data(), 105), 1);
  const std::vector<float> before = memory.numbers;
  Mapped mapped;
  mapped.experts.up->bind(memory.numbers.data());
  const Matrix<float> x = awkward::rows<float>(4, 7);
  const std::vector<int> of_rows{1, 0, 2, 1};
  const Matrix<float> base = mapped.experts.up(x, of_rows);
  graft::LoraConfig config{.r = 3, .lora_alpha = 7, .init_lora_weights = false};
  config.target_parameters = {"up"};
  (void)graft::inject_adapter_in_model(config, mapped);
  experts::train(mapped, "default", 3);
  const Matrix<float> with = mapped.experts.up(x, of_rows);
  REQUIRE_FALSE(same_values(with, base));
  (void)graft::merge_adapter(mapped);
  CHECK(memory.numbers == before);
  CHECK(same_values(Matrix<float>(mapped.experts.up(x, of_rows)), with));
  (void)graft::unmerge_adapter(mapped);
  CHECK(mapped.experts.up->view().data() == memory.numbers.data());

  Narrow narrow;
  for (Index i = 0; i < narrow.experts.up->size(); ++i) narrow.experts.up->data()[i] = graft::bf16(before[std::size_t(i)]);
  (void)graft::inject_adapter_in_model(config, narrow);
  experts::train(narrow, "default", 3);
  const Matrix<float> y = narrow.experts.up(x, of_rows);
  REQUIRE_FALSE(same_values(y, base));
  CHECK_THROWS_AS((void)graft::merge_adapter(narrow), graft::MergeError);
  const graft::StateDict kept = graft::get_base_model_state_dict(narrow).clone();
  (void)graft::merge_adapter(narrow, {}, {.unmerge = graft::Unmerge::backup});
  CHECK(results::close(results::values_of(Matrix<float>(narrow.experts.up(x, of_rows))), results::values_of(y), 0x1p-6));
  (void)graft::unmerge_adapter(narrow);
  CHECK(results::bytes_of(graft::get_base_model_state_dict(narrow)) == results::bytes_of(kept));
}

TEST_CASE("matrices that stay narrow are widened where they are used, with the same bits") {
  using State = graft::detail::ParameterLora<float>;
  graft::LayerFacts table;
  table.kind = graft::LayerKind::embedding;
  table.in = 5;
  table.out = 7;
  std::vector<graft::LayerFacts> all{table};
  for (const bool transposed : {false, true})
    for (const Shape& shape : {Shape{5, 7}, Shape{3, 5, 7}}) all.push_back(facts(shape, transposed));
  const std::vector<int> of_rows{2, 0, 2, 1}, ids{4, 0, 2, 2};
  for (const graft::LayerFacts& layer : all)
    for (const graft::Dtype dtype : {graft::Dtype::bf16, graft::Dtype::f16}) {
      State wide({}, layer, plan), narrow({}, layer, plan);
      for (int i = 0; i < 2; ++i) {
        graft::ParameterData& from = *narrow.parameters()[std::size_t(i)].data;
        graft::ParameterData& to = *wide.parameters()[std::size_t(i)].data;
        from.reset(from.shape(), dtype);
        from.allocate();
        to.allocate();
        for (Index k = 0; k < from.shape().size(); ++k) {
          if (dtype == graft::Dtype::bf16) graft::detail::store<graft::bf16>(from, k, awkward::value(k, 3 + i));
          else graft::detail::store<graft::f16>(from, k, awkward::value(k, 3 + i));
          graft::detail::store<float>(to, k, graft::element_as<double>(dtype, from.data(), std::size_t(k)));
        }
      }
      const bool is_table = layer.kind == graft::LayerKind::embedding;
      const Matrix<float> rows = awkward::rows<float>(4, layer.in);
      graft::SiteInput<float> x;
      if (is_table) x.ids = graft::Ids(ids);
      else new (&x.rows) graft::In<float>(graft::in(rows));
      if (layer.stack.experts) x.experts = of_rows;
      const graft::Linear<> none(1, 1);
      const auto updated = [&](const State& state) {
        Matrix<float> y = Matrix<float>::Zero(4, layer.out);
        graft::Workspace workspace;
        state.update(x, graft::out(y), 1, graft::detail::base_weight_of(none), &workspace);
        return y;
      };
      const auto delta = [&](const State& state) {
        Matrix<float> sum = Matrix<float>::Zero(layer.stack.experts ? 15 : 5, 7);
        state.add_delta(0, graft::out(sum), 1, nullptr);
        return sum;
      };
      REQUIRE(updated(wide).cwiseAbs().maxCoeff() > 0.1F);
      CHECK(same_bits(updated(narrow), updated(wide)));
      narrow.parameters()[1].data->set_viewed();
      CHECK(same_bits(updated(narrow), updated(wide)));
      CHECK(same_bits(delta(narrow), delta(wide)));
      CHECK(narrow.delta_bound(1) == wide.delta_bound(1));
    }
}
