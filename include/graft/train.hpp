#pragma once

/// Training what was injected: losses, optimisers, AdaLoRA's rank allocator.

#include "graft.hpp"
#include "training/next_token_targets.hpp"
#include "training/trainable.hpp"
