#pragma once

#include "../kernels/column_sums.hpp"
#include "../tensor/gradients.hpp"
#include "parallel_backward.hpp"
#include "quantized_linear.hpp"

namespace graft {

/// dx += dy·W with the weight as products use it, db += the sum of dy's rows.
template <class T>
void QuantizedLinear::Product::vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>&, std::span<const In<T>>,
                                   std::span<const Out<T>> dx) const {
  if (trained.weight)
    fail<TrainingError>("the weight of a QuantizedLinear is to be trained",
                        "its values are rounded to a byte or to four bits, and take no step",
                        "train an adapter over it, or a Linear from dequantize()");
  if (dx[0].data()) {
    Workspace* const workspace = batch.workspace;
    if (layer->format_ == QuantFormat::int8) detail::parallel_product_backward<T>(layer->int8_view(), layer->in_, dy, dx[0], workspace);
    else detail::parallel_product_backward<T>(layer->four_bit_view(), layer->stride(), dy, dx[0], workspace);
  }
  if (trained.bias && layer->bias.size())
    kernels::add_column_sums<T>(dy.rows(), dy.cols(), dy.data(), dy.outerStride(), gradients.at<T>(layer->bias.untyped()).data());
}

}  // namespace graft
