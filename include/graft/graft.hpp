#pragma once

/// Everything but files, training, serving and regular expressions: describe, inject, run, switch, state dicts.

// the visitor first: the compiler's errors about a description then name no other file
#include "modules/describe.hpp"
#include "modules/visit.hpp"
#include "modules/paths.hpp"

#include "adapters/adapted.hpp"
#include "core/error.hpp"
#include "core/version.hpp"
#include "injection/control.hpp"
#include "injection/disable.hpp"
#include "injection/inject.hpp"
#include "injection/merge.hpp"
#include "modules/activations.hpp"
#include "modules/attention.hpp"
#include "modules/conv.hpp"
#include "modules/embedding.hpp"
#include "modules/initialise.hpp"
#include "modules/linear.hpp"
#include "modules/norm.hpp"
#include "modules/ops.hpp"
#include "modules/pool.hpp"
#include "modules/reflection.hpp"
#include "state_dict/add_weighted_adapter.hpp"
#include "state_dict/collect.hpp"
#include "state_dict/load.hpp"
#include "state_dict/repr.hpp"
#include "state_dict/status.hpp"
#include "state_dict/subtract_mutated_init.hpp"
#include "tensor/batch.hpp"
#include "tensor/rows.hpp"
