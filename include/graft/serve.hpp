#pragma once

/// Many adapters over one model, for many threads.

#include "io.hpp"
#include "serving/neighbours.hpp"
#include "serving/registry.hpp"
