#pragma once

/// The kernels alone, without Eigen: spans of floats in, spans of floats out. For engines that bring everything else.

#include "kernels/attention.hpp"
#include "kernels/attention_backward.hpp"
#include "kernels/backward.hpp"
#include "kernels/conv.hpp"
#include "kernels/conv_backward.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/embedding_backward.hpp"
#include "kernels/low_rank.hpp"
#include "kernels/merge.hpp"
#include "kernels/narrow_low_rank.hpp"
#include "kernels/normalise.hpp"
#include "kernels/panel_product.hpp"
#include "kernels/pool.hpp"
#include "kernels/products.hpp"
#include "kernels/quantize.hpp"
#include "kernels/random.hpp"
#include "kernels/rotary.hpp"
#include "kernels/row_norms.hpp"
