// What most tests of the upper rooms begin with, read once for all of them. Nothing may rely on it: every test includes
// what it uses, and the headers are compiled alone by tools/check_layout --compile.
#include <doctest/doctest.h>

#include <graft/graft.hpp>
