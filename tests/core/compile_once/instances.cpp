#define GRAFT_INSTANTIATE
#include "templates.hpp"
