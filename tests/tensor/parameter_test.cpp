#include <doctest/doctest.h>

#include <graft/tensor/convert.hpp>

#include <graft/tensor/parameter.hpp>
#include <vector>

#include "support/ramp.hpp"

using graft::Device;
using graft::Dtype;
using graft::Matrix;
using graft::Parameter;
using graft::ParameterData;
using graft::ParameterView;
using graft::Shape;

TEST_CASE("a dense parameter is zeros from the start") {
  const Parameter<> weight(Shape{7, 5});
  CHECK(weight.device() == Device::cpu);
  CHECK(weight.shape() == std::vector<graft::Index>{7, 5});
  CHECK(weight.size() == 35);
  CHECK(weight.view().rows() == 7);
  CHECK(weight.view().cols() == 5);
  CHECK(weight.view().isZero(0));
  CHECK_FALSE(weight.requires_grad());
}

TEST_CASE("a view is row-major; a vector is one row, a kernel (out, the rest)") {
  Parameter<> weight(Shape{2, 3});
  weight.view() << 1, 2, 3, 4, 5, 6;
  CHECK(weight.data()[1] == 2);
  CHECK(Parameter<>(Shape{5}).view().rows() == 1);
  CHECK(Parameter<>(Shape{5}).view().cols() == 5);
  CHECK(Parameter<>(Shape{4, 3, 2, 2}).view().rows() == 4);
  CHECK(Parameter<>(Shape{4, 3, 2, 2}).view().cols() == 12);
  CHECK(Parameter<>().size() == 0);
  CHECK(Parameter<>(Shape{0, 3}).view().size() == 0);
}

TEST_CASE("weight scalars: double, bf16 and f16 beside float") {
  CHECK(Parameter<double>(Shape{1}).dtype() == Dtype::f64);
  CHECK(Parameter<graft::f16>(Shape{1}).dtype() == Dtype::f16);
  Parameter<graft::bf16> narrow(Shape{2});
  narrow.view()(0, 1) = graft::bf16(1.5f);
  CHECK(float(narrow.view()(0, 1)) == 1.5f);
  CHECK(float(narrow.view()(0, 0)) == 0.0f);
  CHECK(narrow.untyped().bytes() == 4);
}

TEST_CASE("a lazy parameter has a shape and no memory, and says so when it is used") {
  Parameter<float, graft::lazy> weight(Shape{7, 5});
  CHECK(weight.device() == Device::meta);
  CHECK(weight.size() == 35);
  CHECK(weight.data() == nullptr);
  CHECK_THROWS_AS((void)weight.view(), graft::MetaError);
  CHECK_THROWS_WITH_AS((void)std::as_const(weight).view(), doctest::Contains("(7, 5)"), graft::MetaError);
  weight.materialize();
  CHECK(weight.device() == Device::cpu);
  CHECK(weight.view().isZero(0));
  weight.view()(0, 0) = 3;
  weight.materialize();
  CHECK(weight.view()(0, 0) == 3);
}

TEST_CASE("a mapped parameter reads somebody else's memory, and keeps the owner alive") {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4, 5, 6});
  const std::weak_ptr<std::vector<float>> watch = owner;
  {
    Parameter<float, graft::mapped> weight(Shape{2, 3});
    CHECK(weight.is_meta());
    weight.bind(owner->data(), owner);
    owner.reset();
    REQUIRE_FALSE(watch.expired());
    CHECK(weight.view()(1, 0) == 4);
    (*watch.lock())[3] = 40;
    CHECK(weight.view()(1, 0) == 40);
    CHECK(weight.untyped().is_borrowed());
  }
  CHECK(watch.expired());
}

TEST_CASE("a copy of a dense parameter owns its values") {
  Parameter<> a(Shape{2, 3});
  a.view().setConstant(1);
  a.set_requires_grad(true);
  Parameter<> b = a;
  b.view()(0, 0) = 7;
  CHECK(a.view()(0, 0) == 1);
  CHECK(b.view()(1, 2) == 1);
  CHECK(b.requires_grad());
  a = b;
  CHECK(a.view()(0, 0) == 7);
  CHECK(a.data() != b.data());
  const Parameter<>& same = a;
  a = same;
  CHECK(a.view()(0, 0) == 7);
}

TEST_CASE("a copy of a borrowed parameter borrows too, until it detaches") {
  std::vector<float> memory{1, 2};
  Parameter<float, graft::mapped> a(Shape{2});
  a.bind(memory.data());
  Parameter<float, graft::mapped> b = a;
  CHECK(b.data() == memory.data());
  b.untyped().detach();
  CHECK(b.data() != memory.data());
  CHECK(b.view()(0, 1) == 2);
  b.view()(0, 1) = 9;
  CHECK(memory[1] == 2);
  CHECK_FALSE(b.untyped().is_borrowed());
}

TEST_CASE("share ties two parameters to one memory; a write through one is seen by the other") {
  Parameter<> tied;
  {
    Parameter<> embedding(Shape{3, 2});
    tied = embedding.share();
    embedding.view()(2, 1) = 5;
    CHECK(tied.data() == embedding.data());
    tied.view()(0, 0) = 6;
    CHECK(embedding.view()(0, 0) == 6);
  }
  CHECK(tied.view()(2, 1) == 5);
  CHECK(tied.shape() == std::vector<graft::Index>{3, 2});
}

TEST_CASE("untyped data can change its shape and give its memory up") {
  ParameterData data(Dtype::f32, {2, 3});
  CHECK(data.is_meta());
  data.allocate();
  CHECK(data.device() == Device::cpu);
  CHECK(data.bytes() == 24);
  CHECK(data.view().data == data.data());
  CHECK(data.view().shape == std::vector<graft::Index>{2, 3});
  data.reset({4});
  CHECK(data.is_meta());
  CHECK(data.bytes() == 16);
}

TEST_CASE("a moved parameter takes its memory along") {
  Parameter<> a(Shape{2});
  const float* memory = a.data();
  const Parameter<> b = std::move(a);
  CHECK(b.data() == memory);
}

TEST_CASE("a site's view of a parameter converts nothing and has no memory on meta") {
  ParameterData data(Dtype::f64, {3, 2});
  CHECK_THROWS_AS((void)ParameterView(data).view<double>(), graft::MetaError);
  data.allocate();
  ParameterView(data).view<double>()(2, 1) = 4;
  CHECK(reinterpret_cast<double*>(data.data())[5] == 4);
  CHECK_THROWS_WITH_AS((void)ParameterView(data).view<float>(), doctest::Contains("F64"), graft::ShapeError);
  data.set_requires_grad(true);
  CHECK(ParameterView(data).requires_grad());
  CHECK(ParameterView(data).dtype() == Dtype::f64);
  CHECK(ParameterView(data).shape() == std::vector<graft::Index>{3, 2});
}

TEST_CASE("every write changes the version, reading does not, and shared memory shares it") {
  Parameter<> weight(Shape{2, 3});
  const auto changes = [&](auto&& write) {
    const std::uint64_t before = weight.version();
    write();
    return weight.version() != before;
  };
  CHECK_FALSE(changes([&] { (void)std::as_const(weight).view(); }));
  CHECK_FALSE(changes([&] { (void)std::as_const(weight).data(); }));
  CHECK(changes([&] { weight.view()(0, 0) = 1; }));
  CHECK(changes([&] { weight.data()[1] = 1; }));
  CHECK(changes([&] { weight.untyped().touch(); }));
  CHECK(changes([&] { (void)ParameterView(weight.untyped()).view<float>(); }));
  CHECK(changes([&] { weight = Parameter<>(Shape{2, 3}); }));
  const Parameter<> other(Shape{2, 3});
  CHECK(changes([&] { weight = other; }));
  Parameter<> tied = weight.share();
  CHECK(tied.version() == weight.version());
  CHECK(changes([&] { tied.view()(0, 0) = 2; }));
  CHECK(tied.version() == weight.version());
  Parameter<> copy = tied;
  CHECK_FALSE(changes([&] { copy.view()(0, 0) = 3; }));
}

TEST_CASE("a copy of either end of a tie has memory of its own; a load through one end reaches the other") {
  Parameter<> embedding(Shape{2, 2});
  Parameter<> tied = embedding.share();
  embedding.view()(1, 1) = 5;
  Parameter<> copy = tied;
  CHECK(copy.data() != embedding.data());
  CHECK(copy.view()(1, 1) == 5);
  copy.view()(1, 1) = 7;
  CHECK(embedding.view()(1, 1) == 5);
  const std::vector<float> values{1, 2, 3, 4};
  graft::detail::assign(tied.untyped(), {Dtype::f32, {2, 2}, reinterpret_cast<const std::byte*>(values.data()), nullptr},
                        false);
  CHECK(tied.data() == embedding.data());
  CHECK(embedding.view()(1, 0) == 3);
}
