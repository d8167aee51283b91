#include <doctest/doctest.h>

#include <graft/tensor/shape.hpp>

using graft::Shape;

TEST_CASE("a shape counts elements, rows and columns") {
  constexpr Shape conv{7, 5, 3, 2};
  static_assert(conv.rank() == 4 && conv.size() == 210 && conv.rows() == 7 && conv.cols() == 30 && conv.back() == 2);
  static_assert(conv.tail() == Shape{5, 3, 2});
  static_assert(conv[1] == 5);
}

TEST_CASE("a vector and a scalar are one row") {
  CHECK(Shape{13}.rows() == 1);
  CHECK(Shape{13}.cols() == 13);
  CHECK(Shape{}.rows() == 1);
  CHECK(Shape{}.cols() == 1);
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{13}.tail() == Shape{});
}

TEST_CASE("a dimension of zero makes it empty") {
  CHECK(Shape{0, 5}.size() == 0);
  CHECK(Shape{0, 5}.rows() == 0);
  CHECK(Shape{0, 5}.cols() == 5);
  CHECK(Shape{0}.size() == 0);
}

TEST_CASE("shapes are equal in rank and in every dimension") {
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK(Shape{2, 3} != Shape{3, 2});
  CHECK(Shape{2, 3} != Shape{2, 3, 1});
  CHECK(Shape{} == Shape());
}

TEST_CASE("six dimensions are the most") {
  Shape shape{1, 2, 3, 4, 5, 6};
  CHECK(shape.size() == 720);
  CHECK_THROWS_AS(shape.push_back(7), graft::ShapeError);
  CHECK_THROWS_AS(Shape(std::vector<graft::Index>(7, 1)), graft::ShapeError);
  CHECK(shape.rank() == 6);
}

TEST_CASE("vectors and text") {
  CHECK(Shape(std::vector<graft::Index>{4, 9}) == Shape{4, 9});
  CHECK(Shape{4, 9}.to_vector() == std::vector<graft::Index>{4, 9});
  CHECK(to_string(Shape{4, 9}) == "(4, 9)");
  CHECK(to_string(Shape{4}) == "(4,)");
  CHECK(to_string(Shape{}) == "()");
}
