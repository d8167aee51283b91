#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "../core/error.hpp"

namespace graft {

/// What a convolution reads beyond its input's border; torch's padding_mode.
enum class PaddingMode { zeros, reflect, replicate, circular };

namespace kernels {

/// The geometry of a convolution over one sample with 1 to 3 spatial axes: {depth, height, width}. A Conv1d
/// uses index 2 alone, a Conv2d 1 and 2; an axis that does not exist keeps its defaults.
struct ConvGeometry {
  using Axes = std::array<std::ptrdiff_t, 3>;

  std::ptrdiff_t in = 1, out = 1, groups = 1;  ///< channels; groups divides both
  Axes input{1, 1, 1};                         ///< the sample's spatial size
  Axes kernel{1, 1, 1}, stride{1, 1, 1}, dilation{1, 1, 1};
  Axes padding_before{0, 0, 0}, padding_after{0, 0, 0};
  PaddingMode padding_mode = PaddingMode::zeros;

  /// torch's padding="same" (stride 1): the odd element goes behind.
  void pad_same() {
    for (std::size_t a = 0; a < 3; ++a) {
      const std::ptrdiff_t total = dilation[a] * (kernel[a] - 1);
      padding_before[a] = total / 2;
      padding_after[a] = total - total / 2;
    }
  }
  /// The result's spatial size.
  [[nodiscard]] Axes output() const {
    Axes size;
    for (std::size_t a = 0; a < 3; ++a)
      size[a] =
          (input[a] + padding_before[a] + padding_after[a] - dilation[a] * (kernel[a] - 1) - 1) / stride[a] +
          1;
    return size;
  }
  [[nodiscard]] std::ptrdiff_t input_positions() const { return input[0] * input[1] * input[2]; }
  [[nodiscard]] std::ptrdiff_t output_positions() const {
    const Axes size = output();
    return size[0] * size[1] * size[2];
  }
  [[nodiscard]] std::ptrdiff_t kernel_positions() const { return kernel[0] * kernel[1] * kernel[2]; }
  /// The length of one row of the weight (out, in / groups, kernel…).
  [[nodiscard]] std::ptrdiff_t weight_columns() const { return in / groups * kernel_positions(); }

  /// Throws a ShapeError unless a convolution of this geometry exists.
  void check() const {
    if (groups < 1 || in % groups != 0 || out % groups != 0)
      fail<ShapeError>("a convolution cannot split " + std::to_string(in) + " -> " + std::to_string(out) +
                           " channels into " + std::to_string(groups) + " groups",
                       "every group has the same number of channels",
                       "let groups divide both channel counts");
    for (std::size_t a = 0; a < 3; ++a) check_axis(a);
  }

 private:
  void check_axis(std::size_t a) const {
    if (kernel[a] < 1 || stride[a] < 1 || dilation[a] < 1 || padding_before[a] < 0 || padding_after[a] < 0)
      fail<ShapeError>("a convolution has a kernel, stride or dilation below 1, or a negative padding",
                       "it would read nothing or walk backwards", "use positive sizes");
    const std::ptrdiff_t padded = input[a] + padding_before[a] + padding_after[a];
    const std::ptrdiff_t reach = dilation[a] * (kernel[a] - 1) + 1;
    if (input[a] < 1 || padded < reach)
      fail<ShapeError>("a convolution's kernel reaches over " + std::to_string(reach) +
                           " elements, its padded input has " + std::to_string(padded),
                       "no position of the kernel fits",
                       "use a larger input, more padding or a smaller kernel");
    const std::ptrdiff_t limit = padding_mode == PaddingMode::reflect    ? input[a] - 1
                                 : padding_mode == PaddingMode::circular ? input[a]
                                                                         : PTRDIFF_MAX;
    if (padding_before[a] > limit || padding_after[a] > limit)
      fail<ShapeError>("a convolution pads an axis of " + std::to_string(input[a]) + " elements by " +
                           std::to_string(padding_before[a] > limit ? padding_before[a] : padding_after[a]),
                       "reflect pads by less than the axis has, circular by no more than that",
                       "use a larger input, less padding or padding_mode replicate");
  }
};

}  // namespace kernels
}  // namespace graft
