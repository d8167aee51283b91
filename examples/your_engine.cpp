// An engine that was there before graft: plain structs, Eigen's own matrices (a column is a token), its own
// forward, buffers, cache and attention loop. What it adds to take adapters is marked with (+).
#include <graft/graft.hpp>

#include <cmath>
#include <iostream>
#include <vector>

using Eigen::Index, Eigen::MatrixXf, Eigen::VectorXf;
struct Dense {  // y = W x + b
  Dense(int in, int out) : weight(out, in), bias(out) {}
  MatrixXf weight;
  VectorXf bias;
};
template <>
struct graft::layer_traits<Dense> {  // (+) the trait; in graft's matrices a row is a token
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Dense& l) { return l.weight.cols(); }
  static Index out_features(const Dense& l) { return l.weight.rows(); }
  static auto& weight(auto& l) { return l.weight; }
  static auto& bias(auto& l) { return l.bias; }
  static Matrix<> forward(const Dense& l, const auto& x) {
    return (x * l.weight.transpose()).rowwise() + l.bias.transpose();
  }
};

struct Block {
  graft::Adaptable<Dense> q{16, 16}, k{16, 16}, v{16, 16}, o{16, 16};  // (+) Adaptable
  GRAFT_MODULE(q, k, v, o)                                             // (+)
};
struct Model {
  MatrixXf tokens = MatrixXf::NullaryExpr(16, 32, [](auto i, auto j) { return std::sin(3.f * i + 5.f * j); });
  std::vector<Block> blocks = std::vector<Block>(2);
  GRAFT_MODULE(tokens, blocks)  // (+)
};
struct Request {
  std::vector<int> ids;
  graft::AdapterSelection adapters{};  // (+)
  std::vector<MatrixXf> keys{2, MatrixXf(16, 64)}, values = keys;  // per block, a column for each position
  Index length = 0;
};

struct Engine {
  const Model& model;
  graft::Batch batch{};  // (+)
  MatrixXf x{}, q{}, k{}, v{}, mixed{}, out{};

  MatrixXf step(std::vector<Request>& requests) {  // all new tokens, in one pass
    batch.clear();
    for (const Request& request : requests) batch.add(Index(request.ids.size()), request.adapters);  // (+)
    for (MatrixXf* buffer : {&x, &q, &k, &v, &mixed, &out}) buffer->resize(16, batch.rows());
    Index at = 0;
    for (const Request& request : requests)
      for (const int id : request.ids) x.col(at++) = model.tokens.col(id);
    for (std::size_t i = 0; i < model.blocks.size(); ++i) run(model.blocks[i], i, requests);
    for (Request& request : requests) request.length += Index(request.ids.size());
    return x;
  }
  void run(const Block& block, std::size_t number, std::vector<Request>& requests) {
    block.q(x.transpose(), batch, q.transpose());  // (+) the batch, and y; a transpose is a view
    block.k(x.transpose(), batch, k.transpose());
    v = (block.v->weight * x).colwise() + block.v->bias;  // a product that the engine makes itself …
    block.v.update(batch, x.transpose(), v.transpose());  // (+) … and graft adds the adapters
    Index column = 0;
    for (Request& request : requests)
      for (Index i = 0; i < Index(request.ids.size()); ++i)
        attend(request.keys[number], request.values[number], request.length + i, column++);
    block.o(mixed.transpose(), batch, out.transpose());
    x += out;
  }
  void attend(MatrixXf& keys, MatrixXf& values, Index position, Index column) {
    keys.col(position) = k.col(column);
    values.col(position) = v.col(column);
    VectorXf p = (keys.leftCols(position + 1).transpose() * q.col(column) / 4).array().exp();
    mixed.col(column).noalias() = values.leftCols(position + 1) * (p / p.sum());
  }
};

int main() {
  Model model;
  graft::initialise(model, 1);
  graft::LoraConfig lora{.r = 4, .target_modules = {"q", "v"}, .init_lora_weights = false};
  graft::inject_adapter_in_model(lora, model, "alice");
  graft::Ia3Config ia3{.target_modules = {"k", "v"}, .init_ia3_weights = false};
  graft::inject_adapter_in_model(ia3, model, "bob");
  const auto answer = [&](std::vector<Request> requests) {  // the prompts, then one more token each
    Engine engine{model};
    engine.step(requests);
    for (Request& request : requests) request.ids = {7};
    return engine.step(requests);
  };
  const auto alice = graft::select(model, {{"alice"}}), bob = graft::select(model, {{"bob"}});
  const auto none = graft::base_only();
  const std::vector<Request> three{{{1, 2}, alice}, {{4, 5}, none}, {{6, 8, 9}, bob}};
  const MatrixXf mixed = answer(three), base = answer({{{1, 2}, none}, {{4, 5}, none}, {{6, 8, 9}, none}});
  for (int i = 0; i < 3; ++i)
    std::cout << std::boolalpha << i << ": as if alone " << mixed.col(i).isApprox(answer({three[i]}), 1e-4f)
              << ", bit for bit the base's answer " << (mixed.col(i) == base.col(i)) << '\n';
}
