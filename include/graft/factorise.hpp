#pragma once

/// SVD and QR: initialisations, combinations and conversions that factorise matrices.
///
/// It takes the compiler longer than all the rest of graft: one file of a program that includes it is enough,
/// and the others find the verbs in the headers named here.

#include "adapters/initial_factors.hpp"
#include "graft.hpp"
#include "state_dict/convert_to_lora.hpp"
#include "state_dict/eva.hpp"

namespace graft::detail {
// Including this header lets every config and every combination of the program factorise.
inline const bool has_factorisers = (factorisers = &eigen_factorisers, true);
}  // namespace graft::detail
