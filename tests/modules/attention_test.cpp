#include <doctest/doctest.h>

#include <graft/modules/attention.hpp>
#include <graft/modules/linear.hpp>
#include <graft/modules/norm.hpp>
#include <graft/modules/ops.hpp>

#include "support/cutting_host.hpp"
#include "support/ramp.hpp"

using graft::AttentionOptions;
using graft::Batch;
using graft::CacheError;
using graft::Index;
using graft::KvCache;
using graft::Matrix;
using graft::ShapeError;
using support::close;
using support::ramp;

namespace {
// transformers' apply_rotary_pos_emb of ramp(3, 8, salt=1) as two heads of 4: positions 0 to 2, then 5 to 7
const std::vector<double> from_0{0,            -1.125,       0.625,           -0.5,         1.25,         0.125,
                                 -1,           0.75,         -0.4129811109,   1.383681105,  -0.1804760428, -0.8612064795,
                                 1.629787122,  -0.2537374376, -0.006628558862, 0.3724812918, 0.4257723058, 1.02479834,
                                 -0.6299547156, -1.229751342, -1.231033023,    -0.6248750042, -0.0135164777, -0.01249916668};
const std::vector<double> from_5{0.5993276717, -1.098604458, 0.1772888659, -0.5556016956, -0.6043465428, 0.0873594056,
                                 -1.482317529, 0.7553100915, -0.2902099829, 1.424994248,  0.3448233835,  -0.7909749635,
                                 0.4559526908, -0.2720366374, -1.564722705, 0.3593342009, -0.4833033659, 1.084979559,
                                 -0.5869777308, -1.176995903, -0.3621587964, -0.6234693752, 1.176633335, -0.04371427959};
// the same as one head of 8 with theta 500
const std::vector<double> theta_500{0,            -1.125,       0.625,        -0.5,          1.25,          0.125,
                                    -1,           0.75,         -0.9389004764, 1.396843862,  0.3112214158,  -0.8785073473,
                                    0.1572128983, 0.0441839817, -1.362448616, 0.3667081139,  -0.142538586,  1.168414517,
                                    -0.2249892818, -1.2497764,  -0.8900464884, -0.1594757564, 1.10933756,   -0.02364213042};

// q = ramp(5, 12, salt=1) as 4 heads, k = ramp(5, 6, salt=2) and v = ramp(5, 6, salt=3) as 2:
// F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True), then without the mask
const std::vector<double> causal{
    -0.125,        -1.25,         0.5,           -0.125,        -1.25,        0.5,          -0.625,        1.125,
    0,             -0.625,        1.125,         0,             -0.2609521597, -0.9950897006, 0.3640478403, -0.9106730533,
    0.2231369749,  -0.2856730533, 0.8594125505,  0.3333133064,  -0.7916866936, 0.178115463,  0.6966717531,  -0.4283282469,
    0.339638064,   -0.392286667,  0.964638064,   -0.1405920139, -0.9281862703, 0.4844079861, 0.7614723842,  0.1825334088,
    -0.5618141169, 0.768329962,   0.1710229861,  -0.5586000748, -0.6101102984, -0.09799966208, 0.0148897016, 0.2406022968,
    -0.5471944107, 0.8656022968,  0.1715555845,  -0.3031263321, 0.430190971,  -0.3478450723, 0.7950536575,  -0.0263957074,
    -0.838406438,  0.1180841977,  -0.213406438,  -0.8482377826, 0.1258360563, -0.2232377826, 0.1219160667,  -0.06378861486,
    0.1919992653,  0.2349824731,  -0.2010197847, 0.22565526};
const std::vector<double> unmasked{
    -0.8507368446, 0.1277590397,  -0.2257368446, 0.0877465723,  -0.4414131128, 0.7127465723, 0.255463355,   -0.2256251529,
    0.2308800383,  -0.2415848392, 0.7413135433,  -0.126508415,  -0.2573099852, -1.016107923, 0.3676900148,  -0.843288446,
    0.1219727346,  -0.218288446,  0.5831307023,  0.2773208931,  -0.65947585,  0.1852219184, -0.140822636,  0.2116000982,
    0.08131704219, -0.4332904502, 0.7063170422,  -0.2525896549, -1.019650578, 0.3724103451, 0.06271801327, 0.5630454444,
    -0.444385914,  0.3859987241,  0.3862554407,  -0.5765133956, -0.8557818704, 0.1315891509, -0.2307818704, 0.08538419238,
    -0.4381488714, 0.7103841924,  0.2891768885,  -0.2657312686, 0.2383354344, -0.2071888083, 0.7191262709,  -0.1313120888,
    -0.838406438,  0.1180841977,  -0.213406438,  -0.8482377826, 0.1258360563, -0.2232377826, 0.1219160667,  -0.06378861486,
    0.1919992653,  0.2349824731,  -0.2010197847, 0.22565526};
// the first three rows, causal, scale=0.25
const std::vector<double> quarter{
    -0.125,        -1.25,         0.5,          -0.125,        -1.25,         0.5,           -0.625,       1.125,         0,
    -0.625,        1.125,         0,            -0.4348584267, -0.6690154499, 0.1901415733,  -0.7620307945, -0.05556726035, -0.1370307945,
    0.5761922278,  0.4843641452,  -0.6406358548, 0.2539824249, 0.6562093734,  -0.4687906266, 0.05927850464, -0.3692179395, 0.6842785046,
    -0.1552170108, -0.6036885048, 0.4697829892, 0.4894481644,  0.1652943085,  -0.2747056843, 0.4933648121, 0.1572419141,  -0.271576487};

template <class T = float>
Matrix<T> attended(Index rows, AttentionOptions options = {.heads = 4, .kv_heads = 2}) {
  return graft::attention(ramp<T>(rows, 12, 1), ramp<T>(rows, 6, 2), ramp<T>(rows, 6, 3), options);
}

/// A Llama-like block: what flows through it decides what it does.
struct Block {
  Index layer;
  graft::RMSNorm<> norm{12};
  graft::Linear<> q{12, 12, false}, k{12, 6, false}, v{12, 6, false}, o{12, 12, false};

  explicit Block(Index number) : layer(number) {
    int salt = int(number) * 4;
    for (graft::Linear<>* linear : {&q, &k, &v, &o}) support::fill_ramp(linear->weight, ++salt);
  }
  auto operator()(const auto& x) const {
    const auto h = norm(x);
    const auto attended =
        graft::attention(graft::rotary(q(h), {.head_dim = 2}), graft::rotary(k(h), {.head_dim = 2}), v(h),
                         {.heads = 6, .kv_heads = 3, .layer = layer});
    return graft::add(x, graft::scale(o(attended), 0.25));
  }
};
const Block first(0), second(1);
auto two_blocks(const auto& x) { return second(first(x)); }
}  // namespace

TEST_CASE("rotary rotates halves by the position, as transformers does") {
  CHECK(close(graft::rotary(ramp(3, 8, 1), {.head_dim = 4}), from_0, 1e-6));
  CHECK(close(graft::rotary(ramp<double>(3, 8, 1), {.head_dim = 4}), from_0, 1e-9));
  CHECK(close(graft::rotary(ramp(3, 8, 1), {.head_dim = 8, .theta = 500}), theta_500, 1e-6));
  CHECK_THROWS_AS((void)graft::rotary(ramp(3, 8), {.head_dim = 3}), ShapeError);
  CHECK_THROWS_AS((void)graft::rotary(ramp(3, 6), {.head_dim = 4}), ShapeError);
  CHECK_THROWS_AS((void)graft::rotary(ramp(3, 6), {}), ShapeError);
}

TEST_CASE("rotary gives every sequence its own positions, whatever stands before it") {
  const graft::RotaryOptions options{.head_dim = 6};
  const Matrix<> x = ramp(400, 12, 1), alone = graft::rotary(x, options);
  Batch batch;
  for (const Index rows : {3, 2, 5, 260, 129, 1}) batch.add(rows);
  const Matrix<> y = graft::rotary(batch.input(x), options).value();
  Index begin = 0;
  bool all = true;
  for (const Index rows : {3, 2, 5, 260, 129, 1}) {
    all = all && y.middleRows(begin, rows) == graft::rotary(Matrix<>(x.middleRows(begin, rows)), options);
    begin += rows;
  }
  CHECK(all);
  CHECK(y.topRows(3) == alone.topRows(3));
  CHECK_FALSE(y.middleRows(3, 2) == alone.middleRows(3, 2));
  Batch later;
  later.add(7).add(2, {}, nullptr, 3);
  Matrix<> again(9, 12);
  again << x.topRows(7), x.middleRows(3, 2);
  CHECK(Matrix<>(graft::rotary(later.input(again), options).value()).bottomRows(2) == alone.middleRows(3, 2));
}

TEST_CASE("rotary takes the position from the sequence") {
  Batch batch;
  batch.add(3, {}, nullptr, 5).add(0).add(3);
  Matrix<> x(6, 8);
  x << ramp(3, 8, 1), ramp(3, 8, 1);
  const Matrix<> y = graft::rotary(batch.input(x), {.head_dim = 4}).value();
  CHECK(close(y.topRows(3), from_5, 1e-6));
  CHECK(close(y.bottomRows(3), from_0, 1e-6));
}

TEST_CASE("attention is torch's, grouped queries included") {
  CHECK(close(attended(5), causal, 1e-6));
  CHECK(close(attended<double>(5), causal, 1e-9));
  CHECK(close(attended(5, {.heads = 4, .kv_heads = 2, .causal = false}), unmasked, 1e-6));
  CHECK(close(attended(3, {.heads = 4, .kv_heads = 2, .scale = 0.25}), quarter, 1e-6));
  CHECK(attended(0).rows() == 0);
}

TEST_CASE("heads that do not fit are ShapeErrors") {
  for (const AttentionOptions& options : {AttentionOptions{.heads = 5, .kv_heads = 5}, AttentionOptions{.heads = 4, .kv_heads = 3},
                                          AttentionOptions{.heads = 4, .kv_heads = 4}, AttentionOptions{.heads = 0, .kv_heads = 0}})
    CHECK_THROWS_AS((void)attended(3, options), ShapeError);
  CHECK_THROWS_AS((void)graft::attention(ramp(3, 12), ramp(2, 6), ramp(3, 6), {.heads = 4, .kv_heads = 2}), ShapeError);
}

TEST_CASE("attention stays inside a sequence") {
  Batch batch;
  batch.add(3).add(5);
  Matrix<> q(8, 12), k(8, 6), v(8, 6);
  q << ramp(3, 12, 7), ramp(5, 12, 1);
  k << ramp(3, 6, 8), ramp(5, 6, 2);
  v << ramp(3, 6, 9), ramp(5, 6, 3);
  const auto y = graft::attention(batch.input(q), batch.input(k), batch.input(v), {.heads = 4, .kv_heads = 2});
  CHECK(close(y.value().bottomRows(5), causal, 1e-6));
}

TEST_CASE("with a cache, keys of earlier calls are seen; the layer must be named") {
  const auto options = [](Index layer) { return AttentionOptions{.heads = 4, .kv_heads = 2, .layer = layer}; };
  KvCache<> cache(1, 6, 5);
  Batch batch;
  Matrix<> y(5, 12);
  Index done = 0;
  for (const Index rows : {2, 1, 2}) {
    batch.clear();
    batch.add(rows, {}, &cache);
    y.middleRows(done, rows) = graft::attention(batch.input(ramp(5, 12, 1).middleRows(done, rows)),
                                                batch.input(ramp(5, 6, 2).middleRows(done, rows)),
                                                batch.input(ramp(5, 6, 3).middleRows(done, rows)), options(0))
                                   .value();
    done += rows;
  }
  CHECK(close(y, causal, 1e-6));
  cache.truncate(0);
  batch.clear();
  batch.add(2, {}, &cache);
  const auto q = batch.input(ramp(2, 12)), k = batch.input(ramp(2, 6));
  CHECK_THROWS_AS((void)graft::attention(q, k, k, options(-1)), CacheError);
  CHECK_THROWS_AS((void)graft::attention(q, k, k, options(1)), CacheError);
  CHECK_NOTHROW((void)graft::attention(q, k, k, options(0)));
  CHECK_THROWS_AS((void)graft::attention(q, k, k, options(0)), CacheError);  // this batch was used already
}

TEST_CASE("a position without a cache has no keys before it") {
  Batch batch;
  batch.add(2, {}, nullptr, 3);
  const auto q = batch.input(ramp(2, 12)), k = batch.input(ramp(2, 6));
  CHECK_THROWS_AS((void)graft::attention(q, k, k, {.heads = 4, .kv_heads = 2}), CacheError);
}

TEST_CASE("a cache of another scalar is a CacheError") {
  KvCache<double> cache(1, 6, 5);
  Batch batch;
  batch.add(2, {}, &cache);
  const auto q = batch.input(ramp(2, 12)), k = batch.input(ramp(2, 6));
  CHECK_THROWS_AS((void)graft::attention(q, k, k, {.heads = 4, .kv_heads = 2, .layer = 0}), CacheError);
}

TEST_CASE("a plain matrix is one sequence from position 0") {
  Batch batch;
  batch.add(7);
  const Matrix<> x = ramp(7, 12, 3);
  CHECK(two_blocks(x) == two_blocks(batch.input(x)).value());
}

TEST_CASE("generation with a cache equals the whole pass, token by token") {
  const Matrix<> x = ramp(9, 12, 3), whole = two_blocks(x);
  KvCache<> cache(2, 6, 9);
  Batch batch;
  Matrix<> y(9, 12);
  const auto step = [&](Index begin, Index rows) {
    batch.clear();
    batch.add(rows, {}, &cache);
    y.middleRows(begin, rows) = two_blocks(batch.input(x.middleRows(begin, rows))).value();
  };
  step(0, 4);
  for (Index i = 4; i < 9; ++i) step(i, 1);
  CHECK(close(y, std::vector<double>(whole.data(), whole.data() + whole.size()), 1e-6));
  cache.truncate(5);
  const Matrix<> before = y;
  step(5, 3);
  CHECK(close(y.middleRows(5, 3), std::vector<double>(before.data() + 60, before.data() + 96), 1e-6));
}

TEST_CASE("sequences of different lengths in one batch equal one by one, bit for bit") {
  const std::vector<Index> lengths{3, 1, 7, 13};
  Batch batch;
  for (const Index length : lengths) batch.add(length);
  const Matrix<> x = ramp(batch.rows(), 12, 5), y = two_blocks(batch.input(x)).value();
  Index begin = 0;
  for (const Index length : lengths) {
    Batch alone;
    alone.add(length);
    CHECK(two_blocks(alone.input(x.middleRows(begin, length))).value() == y.middleRows(begin, length));
    begin += length;
  }
}

TEST_CASE("caches of several sequences advance together") {
  const Matrix<> x = ramp(6, 12, 3), whole = two_blocks(x);
  KvCache<> ahead(2, 6, 6), behind(2, 6, 6);
  Batch batch;
  batch.add(4, {}, &ahead).add(1, {}, &behind);
  Matrix<> prompt(5, 12);
  prompt << x.topRows(4), x.topRows(1);
  (void)two_blocks(batch.input(prompt));
  batch.clear();
  batch.add(2, {}, &ahead).add(3, {}, &behind);
  Matrix<> next(5, 12);
  next << x.middleRows(4, 2), x.middleRows(1, 3);
  const Matrix<> y = two_blocks(batch.input(next)).value();
  const auto rows = [&](Index begin, Index count) {
    return std::vector<double>(whole.data() + begin * 12, whole.data() + (begin + count) * 12);
  };
  CHECK(close(y.topRows(2), rows(4, 2), 1e-6));
  CHECK(close(y.bottomRows(3), rows(1, 3), 1e-6));
}

TEST_CASE("last and mean_pool leave one row per sequence, none for an empty one") {
  Batch batch;
  batch.add(2).add(0).add(3);
  const auto x = batch.input(ramp(5, 7, 1));
  const auto last = graft::last(x), mean = graft::mean_pool(x);
  CHECK(last.rows() == 2);
  CHECK(last.value().row(0) == x.value().row(1));
  CHECK(last.value().row(1) == x.value().row(4));
  CHECK(mean.value().row(0).isApprox(x.value().topRows(2).colwise().mean()));
  CHECK(mean.value().row(1).isApprox(x.value().bottomRows(3).colwise().mean()));
  CHECK(&last.batch() == &mean.batch());
  CHECK(graft::add(last, mean).rows() == 2);
  CHECK_THROWS_AS((void)graft::add(last, x), ShapeError);
  CHECK(graft::last(ramp(5, 7, 1)) == ramp(5, 7, 1).bottomRows(1));
  CHECK(graft::last(Matrix<>(0, 7)).rows() == 0);
}

TEST_CASE("attention in pieces of heads has the bits of the whole, with a cache and without") {
  const AttentionOptions options{.heads = 10, .kv_heads = 5, .layer = 0};
  constexpr Index d = 12, rows = 100;
  Matrix<> q(rows + 1, 10 * d), k(rows + 1, 5 * d), v(rows + 1, 5 * d);
  for (Matrix<>* m : {&q, &k, &v})
    for (Index i = 0; i < m->size(); ++i) m->data()[i] = float((i * 7919 + m->cols()) % 1009) / 1009 - 0.45f;
  const auto run = [&](support::CuttingHost* host, Index keys) {
    KvCache<> cache(1, 5 * d, 4 * rows);
    Batch batch;
    if (host) batch.set_parallel_for(*host);
    std::vector<float> all;
    const auto pass = [&](Index begin, Index count) {
      batch.clear();
      batch.add(count, {}, &cache);
      const auto y = graft::attention(batch.input(q.middleRows(begin, count)), batch.input(k.middleRows(begin, count)),
                                      batch.input(v.middleRows(begin, count)), options);
      all.insert(all.end(), y.value().data(), y.value().data() + y.value().size());
    };
    for (Index done = 0; done < keys; done += rows) pass(0, rows);
    pass(rows, 1);
    return all;
  };
  const auto whole = run(nullptr, 3 * rows);
  for (const Index threads : {2, 3, 16}) {
    support::CuttingHost host(threads);
    CHECK(run(&host, 3 * rows) == whole);
    CHECK(host.calls == 3);  // the prompts; the single row is too short
    CHECK(host.pieces > 2 * 2);
    CHECK(host.pieces <= 3 * std::min<Index>(threads, 5));
  }
}
