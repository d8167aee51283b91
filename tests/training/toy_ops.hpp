#pragma once

#include <vector>

#include <graft/training/record.hpp>

/// Ops of a user's, with gradients that can be told by hand.
namespace toy {

/// x ∘ x
struct Square {
  [[nodiscard]] graft::Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const graft::BatchView&, graft::Out<T> y, std::span<const graft::In<T>> x) const {
    y = x[0].array().square().matrix();
  }
  template <class T>
  void vjp(const graft::BatchView&, graft::Gradients&, const graft::In<T>& dy, const graft::In<T>&, std::span<const graft::In<T>> x,
           std::span<const graft::Out<T>> dx) const {
    graft::Out<T> to = dx[0];
    if (to.data()) to += (2 * dy.array() * x[0].array()).matrix();
  }
};

/// x ∘ y
struct Product {
  [[nodiscard]] graft::Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const graft::BatchView&, graft::Out<T> y, std::span<const graft::In<T>> x) const {
    y = (x[0].array() * x[1].array()).matrix();
  }
  template <class T>
  void vjp(const graft::BatchView&, graft::Gradients&, const graft::In<T>& dy, const graft::In<T>&, std::span<const graft::In<T>> x,
           std::span<const graft::Out<T>> dx) const {
    for (std::size_t i = 0; i < 2; ++i) {
      graft::Out<T> to = dx[i];
      if (to.data()) to += (dy.array() * x[1 - i].array()).matrix();
    }
  }
};

/// x ∘ y, and which gradients were asked for.
struct WatchedProduct : Product {
  std::vector<bool>* wanted;
  template <class T>
  void vjp(const graft::BatchView& batch, graft::Gradients& gradients, const graft::In<T>& dy, const graft::In<T>& y,
           std::span<const graft::In<T>> x, std::span<const graft::Out<T>> dx) const {
    *wanted = {dx[0].data() != nullptr, dx[1].data() != nullptr};
    Product::vjp<T>(batch, gradients, dy, y, x, dx);
  }
};

/// p ∘ x for a row p of its own.
template <class T>
struct Scaled {
  const graft::Parameter<T>* p;
  [[nodiscard]] graft::Index cols(const auto& x) const { return x[0].cols(); }
  [[nodiscard]] bool trainable(const graft::BatchView&) const { return p->requires_grad(); }
  void forward(const graft::BatchView&, graft::Out<T> y, std::span<const graft::In<T>> x) const {
    y = (x[0].array().rowwise() * p->view().row(0).array()).matrix();
  }
  void vjp(const graft::BatchView&, graft::Gradients& gradients, const graft::In<T>& dy, const graft::In<T>&,
           std::span<const graft::In<T>> x, std::span<const graft::Out<T>> dx) const {
    gradients.of(*p) += (dy.array() * x[0].array()).matrix().colwise().sum();
    graft::Out<T> to = dx[0];
    if (to.data()) to += (dy.array().rowwise() * p->view().row(0).array()).matrix();
  }
};

/// The last row of each sequence.
struct Final {
  static constexpr graft::Index tail = 1;
  [[nodiscard]] graft::Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const graft::BatchView& batch, graft::Out<T> y, std::span<const graft::In<T>> x) const {
    graft::Index i = 0;
    for (const graft::Sequence& sequence : batch.sequences) y.row(i++) = x[0].row(sequence.begin + sequence.rows - 1);
  }
  template <class T>
  void vjp(const graft::BatchView& batch, graft::Gradients&, const graft::In<T>& dy, const graft::In<T>&, std::span<const graft::In<T>>,
           std::span<const graft::Out<T>> dx) const {
    graft::Index i = 0;
    graft::Out<T> to = dx[0];
    for (const graft::Sequence& sequence : batch.sequences) to.row(sequence.begin + sequence.rows - 1) += dy.row(i++);
  }
};

/// Has no vjp.
struct Doubled {
  [[nodiscard]] graft::Index cols(const auto& x) const { return x[0].cols(); }
  template <class T>
  void forward(const graft::BatchView&, graft::Out<T> y, std::span<const graft::In<T>> x) const {
    y = 2 * x[0];
  }
};

}  // namespace toy
