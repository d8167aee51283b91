#include <doctest/doctest.h>

#include <graft/state_dict/repr_text.hpp>

using namespace graft::detail;

TEST_CASE("options stand on the first line without children, else on their own") {
  CHECK(module_text("A", "", {}) == "A()");
  CHECK(module_text("A", "x=1", {}) == "A(x=1)");
  CHECK(module_text("A", "x=1", {{"b", "B()"}}) == "A(\n  x=1\n  (b): B()\n)");
}

TEST_CASE("a child of several lines is indented") {
  const std::string inner = module_text("B", "", {{"c", "C()"}});
  CHECK(module_text("A", "", {{"b", inner}}) == "A(\n  (b): B(\n    (c): C()\n  )\n)");
}

TEST_CASE("a list folds neighbours of equal text whose numbers follow each other") {
  CHECK(list_text({}) == "ModuleList()");
  CHECK(list_text({{"0", "A()"}}) == "ModuleList(\n  (0): A()\n)");
  CHECK(list_text({{"0", "A()"}, {"1", "A()"}, {"2", "B()"}, {"3", "A()"}}) ==
        "ModuleList(\n  (0-1): 2 x A()\n  (2): B()\n  (3): A()\n)");
  CHECK(list_text({{"9", "A()"}, {"10", "A()"}, {"12", "A()"}}) == "ModuleList(\n  (9-10): 2 x A()\n  (12): A()\n)");
}

TEST_CASE("one parameter stays on the first line") {
  CHECK(parameters_text("P", {}) == "P()");
  CHECK(parameters_text("P", {{"a", "t"}}) == "P(  (a): Parameter containing: [t])");
  CHECK(parameters_text("P", {{"a", "t"}, {"b", "u"}}) ==
        "P(\n    (a): Parameter containing: [t]\n    (b): Parameter containing: [u]\n)");
}

TEST_CASE("tensors are named by class, device and size") {
  using graft::Device;
  using graft::Dtype;
  CHECK(tensor_class(Dtype::f16, Device::cpu) == "torch.HalfTensor");
  CHECK(tensor_class(Dtype::bf16, Device::meta) == "torch.meta.BFloat16Tensor");
  CHECK(dtype_text(Dtype::f16) == "torch.float16");
  CHECK(size_text({2, 11}) == "2x11");
  CHECK(size_text({7}) == "7");
}
