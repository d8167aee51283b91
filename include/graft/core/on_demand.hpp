#pragma once

#include "version.hpp"

namespace graft {

/// Stands as `template <class = OnDemand>` over a function or a class that only some programs use. A plain inline
/// function is compiled, with everything that it calls, by everybody who includes its header; a template by those who
/// call it. It is called, and its objects are made, as if the line were not there.
struct OnDemand {};

}  // namespace graft
