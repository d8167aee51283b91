#include <graft/modules/multihead_attention_vjp.hpp>

#include <doctest/doctest.h>

#include "support/batch_gradients.hpp"
#include "support/ramp.hpp"

using graft::Batch;
using graft::Matrix;
using graft::ops::AttentionAcross;
using graft::ops::PackedAttention;
using support::ramp;

TEST_CASE("a packed attention's gradient is central differences, and nothing of it is wanted where it is null") {
  Batch batch;
  batch.add(3).add(0).add(5);
  for (const bool causal : {true, false})
    support::check_on(PackedAttention{{.heads = 2, .kv_heads = 2, .causal = causal}}, batch, ramp<double>(8, 6, 2), {ramp<double>(8, 18, 1)});
  CHECK(support::vjp_on<double>(PackedAttention{{.heads = 2, .kv_heads = 2}}, batch, ramp<double>(8, 6, 2), {ramp<double>(8, 18, 1)}, 0)[0].isZero(0));
}

// q, k, v = x.split(6, 1) of x = ramp(4, 18, salt=5) as 2 heads: F.scaled_dot_product_attention(q, k, v, is_causal=True),
// rows of heads, .backward(ramp(4, 6, salt=6))
TEST_CASE("a packed attention's gradient is torch's") {
  Batch batch;
  batch.add(4);
  const auto dx = support::vjp_on<double>(PackedAttention{{.heads = 2, .kv_heads = 2}}, batch, ramp<double>(4, 6, 6), {ramp<double>(4, 18, 5)});
  CHECK(support::close(dx[0], {0, 0, 0, 0, 0, 0, 0.010088139365133444, -0.021731978112359805, -0.0012761883053998596,
                           -0.006902737915108894, 0.0045501123043851822, -0.0028124342652895793, 1.1964824375822287,
                           -0.19374360232117449, -1.3192228282183893, 0.1339388650529118, 0.1349920265982415,
                           1.433342221822135, -0.00028133654219176379, -0.00028133654219150792, -0.00028133654219167229,
                           0.002818863705339205, 0.0028188637053389171, 0.0028188637053386291, -0.0018921077564476498,
                           0.0056575557591373093, 0.00080420064197554979, 0.013400380338879353, -0.016460353732518959,
                           0.0027358324562370981, 0.075329715710496625, -0.17002164373265385, -0.20448459783154926,
                           -0.50472320306506324, 0.64050351979597708, 0.19690152251268267, 0.009670213374318927,
                           -0.0011855028844410731, -0.0011855028844411073, -0.010513915951422939, -0.010513915951422925,
                           -0.010513915951422911, -0.0040507560529145486, 0.0086129263528343675, 0.00047198766342435022,
                           -0.025983573431157526, 0.022735758654460023, -0.0085838119720084011, -0.018548843139753107,
                           0.12898233228470696, -0.19912171164127704, -0.32600058660464459, -0.060764390623223391,
                           0.083240175277391137, 0.025648487319896829, -0.0033686850730502973, -0.0033686850730504951,
                           0.0093633675747484303, 0.0093633675747484234, -0.040434011666351286, -0.0041452755557714249,
                           0.0074614960003885648, 0, 0.019485931007386843, -0.010825517226326024, 0.0086604137810608189,
                           0.12173668984702776, -0.01521708623087847, -0.15217086230878471, 0.071784924616796031,
                           -0.089731155770995039, 0.16151608038779108}, 1e-14));
}

TEST_CASE("attention across has the gradients of queries, keys and values, those of every sequence from its own rows") {
  Batch batch;
  batch.add(3).add(0).add(5).add(1);
  const Matrix<double> dy = ramp<double>(9, 6, 4);
  std::vector<Matrix<double>> x{ramp<double>(9, 6, 1), ramp<double>(9, 6, 2), ramp<double>(9, 6, 3)};
  support::check_on(AttentionAcross{2}, batch, dy, x);
  support::check_on(AttentionAcross{6}, batch, dy, x);
  const auto dx = support::vjp_on<double>(AttentionAcross{2}, batch, dy, x);
  for (Matrix<double>& one : x) one.topRows(3).array() += 1;
  const auto after = support::vjp_on<double>(AttentionAcross{2}, batch, dy, x);
  for (std::size_t i = 0; i < 3; ++i) CHECK(after[i].bottomRows(6) == dx[i].bottomRows(6));
}

TEST_CASE("training a packed attention with a cache is an error") {
  graft::KvCache<> cache(1, 6, 5);
  Batch batch;
  batch.add(2, {}, &cache);
  CHECK_THROWS_AS(PackedAttention::check_recorded(batch.view()), graft::TrainingError);
  CHECK(cache.length() == 0);
}
