#include <graft/io/python_names.hpp>

#include <doctest/doctest.h>

#include <algorithm>

// Each name was tried with PEFT 0.21.2 on torch 2.13, by LoRA and by IA3.
TEST_CASE("names that torch's containers have taken, and such as they have not") {
  for (const char* name : {"T_destination", "keys", "forward", "train", "float", "zero_grad", "__init__", "_modules", "_keys"})
    CHECK(graft::detail::is_python_attribute(name));
  for (const char* name : {"default", "_x", "weight", "lora", "a", "original_module", "base_layer", "lora_A", "a b", "\u03bb", ""})
    CHECK_FALSE(graft::detail::is_python_attribute(name));
  CHECK(std::is_sorted(graft::detail::python_attributes.begin(), graft::detail::python_attributes.end()));
}
