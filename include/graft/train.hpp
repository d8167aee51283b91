#pragma once

/// Trains what was injected: values that are recorded and gone back through, losses, optimisers, AdaLoRA's ranks. Beside
/// graft/graft.hpp; docs/training.md.
#include "graft.hpp"
#include "modules/attention_vjp.hpp"
#include "modules/conv_layer_vjp.hpp"
#include "modules/layer_vjp.hpp"
#include "modules/multihead_attention_vjp.hpp"
#include "modules/norm_vjp.hpp"
#include "modules/ops_vjp.hpp"
#include "modules/packed_projection_vjp.hpp"
#include "modules/parameter_layer_vjp.hpp"
#include "modules/pool_vjp.hpp"
#include "modules/quantized_linear_vjp.hpp"
#include "training/adam.hpp"
#include "training/clip_grad_norm.hpp"
#include "training/loss.hpp"
#include "training/next_token_targets.hpp"
#include "training/record.hpp"
#include "training/record_site.hpp"
#include "training/schedule.hpp"
#include "training/sgd.hpp"
#include "training/trainable.hpp"
