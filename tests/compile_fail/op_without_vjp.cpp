// expect: graft: this op has no vjp(batch, gradients, dy, y, x, dx)
#include <graft/train.hpp>

struct Doubled {
  static graft::Index cols(const auto& x) { return x[0].cols(); }
  template <class T>
  void forward(const graft::BatchView&, graft::Out<T> y, std::span<const graft::In<T>> x) const {
    y = 2 * x[0];
  }
};

struct Model {
  graft::Adaptable<graft::Linear<>> head{2, 3};
  auto operator()(const auto& x) const { return graft::custom(Doubled{}, head(x)); }
  GRAFT_MODULE(head)
};

void train(const Model& model, graft::Tape& tape, const graft::Matrix<>& x) { (void)model(tape.input(x)); }
