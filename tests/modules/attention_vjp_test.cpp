#include <graft/modules/attention_vjp.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "support/allocations.hpp"
#include "support/batch_gradients.hpp"
#include "support/cutting_host.hpp"
#include "support/ramp.hpp"

using graft::AttentionOptions;
using graft::Batch;
using graft::Index;
using graft::KvCache;
using graft::Matrix;
using graft::RotaryOptions;
using graft::ops::Attention;
using graft::ops::Last;
using graft::ops::MeanPool;
using graft::ops::Rotary;
using support::ramp;

namespace {

/// Sequences of awkward lengths, one of which has no rows.
Batch& add_all(Batch& batch) { return batch.add(3).add(0).add(7).add(1); }

std::vector<Matrix<double>> q_k_v(Index rows, Index features, Index kv_features) {
  return {ramp<double>(rows, features, 1), ramp<double>(rows, kv_features, 2), ramp<double>(rows, kv_features, 3)};
}

}  // namespace

TEST_CASE("rotary's gradient is central differences, of every sequence by its own positions") {
  Batch batch;
  add_all(batch).add(2, {}, nullptr, 5);
  support::check_on(Rotary{RotaryOptions{.head_dim = 6}}, batch, ramp<double>(13, 18, 2), {ramp<double>(13, 18, 1)});
  Batch longer;  // than a table
  longer.add(3).add(130);
  support::check_on(Rotary{RotaryOptions{.head_dim = 2, .theta = 500}}, longer, ramp<double>(133, 2, 2), {ramp<double>(133, 2, 1)});
}

// transformers' apply_rotary_pos_emb of x = ramp(3, 8, salt=1) as two heads of 4, positions 5 to 7; y.backward(ramp(3, 8, salt=2))
TEST_CASE("rotary's gradient is transformers'") {
  Batch batch;
  batch.add(3, {}, nullptr, 5);
  const auto dx = support::vjp_on<double>(Rotary{RotaryOptions{.head_dim = 4}}, batch, ramp<double>(3, 8, 2), {ramp<double>(3, 8, 1)});
  CHECK(support::close(dx[0], {1.2290942453421823, 0.29341933821058508, 1.0703164653814925, 0.86141168552792591,
                           -0.43051214936448345, -1.4107659849960872, -0.13335774911707476, -0.68034133754904202,
                           1.3094396593990232, -0.094793064252178233, -0.92079736011403157, 0.50659577077753271,
                           -0.60010642915647872, 1.0555161001377296, -0.17463468637432866, -1.1904351147164798,
                           1.2924221573630517, -0.4900326442094482, 0.53176119372988762, 0.15966529870042634,
                           -1.0002722288628505, 0.8443346652790672, 0.37427325334004985, 1.3191754898451098}, 1e-14));
}

TEST_CASE("attention's gradients are central differences, inside every sequence") {
  Batch batch;
  add_all(batch);
  const Matrix<double> dy = ramp<double>(11, 12, 4);
  for (const bool causal : {true, false}) {
    support::check_on(Attention{{.heads = 4, .kv_heads = 2, .causal = causal}}, batch, dy, q_k_v(11, 12, 6));
    support::check_on(Attention{{.heads = 3, .kv_heads = 3, .causal = causal, .scale = 0.3}}, batch, dy, q_k_v(11, 12, 12));
  }
  std::vector<Matrix<double>> changed = q_k_v(11, 12, 6);
  const Attention op{{.heads = 4, .kv_heads = 2}};
  const auto dx = support::vjp_on<double>(op, batch, dy, changed);
  for (Matrix<double>& x : changed) x.bottomRows(8).array() += 1;
  const auto after = support::vjp_on<double>(op, batch, dy, changed);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(after[i].topRows(3) == dx[i].topRows(3));
    CHECK_FALSE(after[i] == dx[i]);
  }
}

// q = ramp(5, 12, salt=1) as 4 heads, k = ramp(5, 6, salt=2) and v = ramp(5, 6, salt=3) as 2:
// F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).backward(ramp(5, 12, salt=4)), rows of heads; then
// without the mask and with scale=0.25
TEST_CASE("attention's gradients are torch's, grouped queries included") {
  Batch batch;
  batch.add(5);
  const Matrix<double> dy = ramp<double>(5, 12, 4);
  auto dx = support::vjp_on<double>(Attention{{.heads = 4, .kv_heads = 2}}, batch, dy, q_k_v(5, 12, 6));
  CHECK(support::close(dx[0], {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -0.18650735649659864, -0.18650735649659861,
                           0.34970129343112244, -0.27343275543866685, -0.2734327554386668, 0.51268641644750024,
                           -0.30796410636651239, -0.30796410636651239, 0.57743269943721076, -0.059641232864161051,
                           -0.059641232864161106, 0.11182731162030199, -0.08977044012859535, 0.30012693466884843,
                           -0.22157779955632756, -0.2402414344668975, -0.11489147554844946, 0.32510273070698487,
                           0.27204493900787496, 0.088096087237261644, -0.32613540886915215, 0.25646054810989094,
                           0.084171887880102131, -0.30857486747625673, 0.028746351262594227, -0.031872594154890979,
                           0.0043729056155378749, -0.27419394017459342, 0.41175075076639239, -0.16290414085589508,
                           -0.57814955137027513, 0.41038136430773392, -0.072029467192469845, 0.3810016290369968,
                           -0.017495937123668249, -0.24765054653107202, -0.12612441050305689, -0.44365841636881781,
                           0.53141558472805728, -0.028843404127085078, 0.054245014077105358, -0.019288952226251332,
                           0.044162591923983432, -0.45348819693261611, 0.20040136352177065, -0.55874653487881354,
                           0.48086448677292304, -0.19180840832972296}, 1e-14));
  CHECK(support::close(dx[1], {-0.62949945812902852, 0.29937746587409003, 0.0070844315102082216, 0.87905417692122456,
                           -0.2065526741385898, 0.18642495927019351, 0.91373076218077987, -0.6452691497812838,
                           0.19455028717240225, -0.20819739502392451, -0.048588666056103555, 0.074897004105289183,
                           -0.33715602825774216, 0.38411441034153959, -0.26552174987666377, -0.90019054210007354,
                           0.32674388320747649, -0.33305035195852184, -0.05005656253094054, 0.023709241195524811,
                           -0.13071273019110172, 0.2169981440502757, -0.20146927607730214, 0.017417373533390648,
                           0.10298128673693153, -0.061931967629870799, 0.19459976138515506, 0.012335616152497751,
                           0.12986673306451912, 0.054311015049648234}, 1e-14));
  CHECK(support::close(dx[2], {1.073074443647805, 1.5868865660859091, 0.32078078190936371, 0.0051195842966398342,
                           -1.771387302318296, 1.6869519686933134, -0.36315701340019196, 0.78476189224954751,
                           -1.4164595180967317, -0.2916811053554807, 0.51480438485887325, -0.97036645423683843,
                           0.47602017961995691, -0.82619700095782378, 0.94753686487211575, 0.26489670016948769,
                           -0.95262075076437958, 0.16027409752526045, 0.27889805483504027, -0.020166313246578815,
                           -0.15197351596472061, 0.14928490931070959, -0.059272326329998321, -0.1114563824057061,
                           0.16016433529738971, 0.34971485586894635, -0.4498846127200275, 0.12237991157864422,
                           -0.10652400544619939, -0.015403229576030006}, 1e-14));
  dx = support::vjp_on<double>(Attention{{.heads = 4, .kv_heads = 2, .causal = false, .scale = 0.25}}, batch, dy, q_k_v(5, 12, 6));
  CHECK(support::close(dx[0], {-0.012871532056601714, 0.018073309606274502, -0.0039541400573560714, -0.11538831801476235,
                           0.346928970817585, -0.2141177660495627, -0.22011349270747838, 0.18118140811856365,
                           -0.078486434557913487, -0.16365760263685339, 0.081159755908071229, 0.0035258494173695826,
                           -0.092645395369003083, -0.15381340483211703, 0.23131431979502215, -0.021885203678367576,
                           -0.28565613806386719, 0.28515465221170111, -0.095618694340678489, -0.25098058127517875,
                           0.076351238081156111, -0.21862727322849679, 0.1759718858783112, -0.098255909358439517,
                           0.022644297997688728, 0.20724904428765134, -0.21558373335080921, -0.13966534240885567,
                           -0.11135982867382493, 0.2383668687125752, 0.18043219936948124, 0.064486964007985981,
                           0.063238710208157689, 0.17369160659708607, 0.056984662806652091, 0.047378083225898683,
                           0.012844861292153719, -0.018097660269234601, 0.0039794483713975976, -0.060107949809252915,
                           0.29129478346423987, -0.2148680535724187, -0.22118861131680237, 0.18383580726962376,
                           -0.066360165462633125, 0.21961529402782232, 0.03550743838303716, -0.097792212297020328,
                           -0.047957270774838689, -0.24950279998303082, 0.27762816795005368, -0.025768669903952338,
                           0.036120758149508374, -0.0078827337532445061, -0.024941110256104904, -0.2448453131903541,
                           0.11086418103560294, -0.21960750362025638, 0.1796121956721338, -0.084877344157116591}, 1e-14));
  CHECK(support::close(dx[1], {-0.26145506777742594, 0.16305211283456711, -0.017741055583702231, 0.29474314050716882,
                           -0.21042741037250995, 0.043301437487126712, 0.42236269679945815, -0.37029236821798367,
                           0.084278431086555125, -0.065079926773603983, -0.011221540822975055, 0.030791025224211656,
                           -0.32345718167359666, 0.4549398469369545, -0.1684126082870403, -0.48287511495108071,
                           0.48534300317763451, -0.31468691965749684, -0.2646420773314459, 0.13941780245730145,
                           0.0064972382856886314, 0.30152140695358953, -0.22631030605793262, 0.18993626941408434,
                           0.42719162998301025, -0.38711739401083939, 0.095377994498498764, -0.048309505736073552,
                           -0.037383745924216852, 0.050658187532074156}, 1e-14));
  CHECK(support::close(dx[2], {0.1153161184524609, 0.59022946304980772, -0.010867812474357363, -0.02268496424439341,
                           -0.52067761550693059, 0.3281143469006908, 0.43625277425299502, 0.41481751676282241,
                           -0.59269056483253468, -0.020434938679726844, -0.30676117075227693, -0.044869329375376521,
                           0.47729821732007305, -0.11301551482910147, 0.48302665065613593, 0.43826291949575447,
                           -1.0293251372494565, 0.62260218554330127, 0.12848426692520043, 0.58219782589419167,
                           -0.022083324991309522, -0.14104521794273556, -0.19590850266912108, -0.11998638849265195,
                           0.46764862304927074, 0.40077070912227958, -0.60738494835793444, -0.0040977986288989049,
                           -0.32232757382221444, -0.035860814575963157}, 1e-14));
}

TEST_CASE("attention of a value to itself has the sum of its three gradients") {
  Batch batch;
  add_all(batch);
  const Attention op{{.heads = 3, .kv_heads = 3}};
  const Matrix<double> x = ramp<double>(11, 12, 1), dy = ramp<double>(11, 12, 4);
  const auto apart = support::vjp_on<double>(op, batch, dy, {x, x, x});
  Matrix<double> y = support::forward_on<double>(op, batch, {x, x, x}), dx = Matrix<double>::Zero(11, 12);
  const std::vector<graft::In<double>> views(3, graft::in(x));
  const std::vector<graft::Out<double>> to(3, graft::out(dx));
  graft::Gradients gradients;
  op.vjp<double>(batch.view(), gradients, graft::in(dy), graft::in(y), std::span<const graft::In<double>>(views),
                 std::span<const graft::Out<double>>(to));
  CHECK_FALSE(dx.isZero(0));
  CHECK(dx.isApprox(apart[0] + apart[1] + apart[2], 1e-13));
}

TEST_CASE("training with a cache is an error, and nothing was appended to it") {
  KvCache<> cache(1, 6, 5);
  Batch batch, without;
  batch.add(2).add(2, {}, &cache);
  without.add(4);
  CHECK_THROWS_AS(Attention::check_recorded(batch.view()), graft::TrainingError);
  CHECK_NOTHROW(Attention::check_recorded(without.view()));
  CHECK(cache.length() == 0);
  const std::vector<Matrix<>> x{ramp(4, 12, 1), ramp(4, 6, 2), ramp(4, 6, 3)};
  const std::vector<graft::In<float>> views{graft::in(x[0]), graft::in(x[1]), graft::in(x[2])};
  Matrix<> dx = Matrix<>::Zero(4, 12);
  const std::vector<graft::Out<float>> to{graft::out(dx), graft::out<float>(nullptr, 0, 0), graft::out<float>(nullptr, 0, 0)};
  graft::Gradients gradients;
  const Attention op{{.heads = 4, .kv_heads = 2, .layer = 0}};
  CHECK_THROWS_AS(op.vjp<float>(batch.view(), gradients, views[0], views[0], views, to), graft::TrainingError);
  CHECK(dx.isZero(0));
}

TEST_CASE("last and mean_pool give the gradient of a sequence's row to the rows that it was made of") {
  Batch batch;
  add_all(batch);
  const Matrix<double> dy = ramp<double>(3, 5, 2), x = ramp<double>(11, 5, 1);
  support::check_on(Last{}, batch, dy, {x});
  support::check_on(MeanPool{}, batch, dy, {x});
  const Matrix<double> of_last = support::vjp_on<double>(Last{}, batch, dy, {x})[0],
                       of_mean = support::vjp_on<double>(MeanPool{}, batch, dy, {x})[0];
  CHECK(of_last.row(2) == dy.row(0));
  CHECK(of_last.topRows(2).isZero(0));
  CHECK(of_last.row(9) == dy.row(1));
  CHECK(of_last.row(10) == dy.row(2));
  CHECK(of_mean.row(4).isApprox(dy.row(1) / 7, 1e-14));
  CHECK(of_mean.row(10) == dy.row(2));
}

TEST_CASE("pieces of heads have the bits of the whole, and a warm pass takes nothing from the heap") {
  const Attention op{{.heads = 10, .kv_heads = 5}};
  const Rotary rotary{{.head_dim = 14}};
  const std::vector<Matrix<>> x{ramp(260, 140, 1) / 3, ramp(260, 70, 2) / 3, ramp(260, 70, 3) / 3};
  const Matrix<> dy = ramp(260, 140, 4) / 3;
  Batch whole;
  whole.add(250).add(10);
  const auto dx = support::vjp_on<float>(op, whole, dy, x);
  for (const Matrix<>& one : dx) CHECK_FALSE(one.isZero(0));
  for (const Index threads : {2, 3, 7}) {
    support::CuttingHost host(threads);
    Batch batch;
    batch.set_parallel_for(host);
    batch.add(250).add(10);
    CHECK(support::vjp_on<float>(op, batch, dy, x) == dx);
    CHECK(host.calls == 2);  // forward too
    CHECK(host.pieces > 2);
  }
  if (!support::counts_malloc) return;
  const std::vector<graft::In<float>> views{graft::in(x[0]), graft::in(x[1]), graft::in(x[2])};
  std::vector<Matrix<>> sums(dx);
  const std::vector<graft::Out<float>> to{graft::out(sums[0]), graft::out(sums[1]), graft::out(sums[2])};
  graft::Gradients gradients;
  const auto pass = [&] {
    op.vjp<float>(whole.view(), gradients, graft::in(dy), graft::in(dy), views, to);
    rotary.vjp<float>(whole.view(), gradients, graft::in(dy), graft::in(dy), views, to);
  };
  pass();
  CHECK(support::allocations_of(pass) == 0);
}

TEST_CASE("a longer sequence needs no more scratch than a few of its rows of scores") {
  const auto scratch_of = [](Index rows) {
    Batch batch;
    batch.add(rows);
    support::vjp_on<float>(Attention{{.heads = 2, .kv_heads = 1}}, batch, ramp(rows, 2, 1), {ramp(rows, 2, 2), ramp(rows, 1, 3), ramp(rows, 1, 4)});
    return batch.workspace().peak();
  };
  CHECK(scratch_of(600) <= 2 * 3 * 64 * 600 * sizeof(float));  // blocks are powers of two
  CHECK(scratch_of(2400) <= 2 * 3 * 16 * 2400 * sizeof(float));
}
