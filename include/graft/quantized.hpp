#pragma once

/// QuantizedLinear: linear layers whose weight is int8, NF4, FP4 or 4-bit integers, for adapters on top.

#include "kernels/quantize.hpp"
#include "modules/quantized_linear.hpp"
