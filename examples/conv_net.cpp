// A convolutional net on Eigen's tensors: LoRA and IA3, and a batch in which every image has its own adapter.
#include <graft/graft.hpp>

#include <iostream>

using Images = Eigen::Tensor<float, 4, Eigen::RowMajor>;  // (n, channels, height, width), as in torch

struct ConvNet {
  graft::Adaptable<graft::Conv2d<>> conv1{1, 4, graft::Conv2dOptions{.kernel = 3, .padding = 1}};
  graft::Adaptable<graft::Conv2d<>> conv2{4, 8, graft::Conv2dOptions{.kernel = {3, 3}, .padding = graft::same}};
  graft::Adaptable<graft::Linear<>> classify{8 * 2 * 2, 10};
  auto operator()(const auto& images) const {
    auto h = graft::max_pool2d(graft::relu(conv1(images)), {.kernel = 2});
    h = graft::avg_pool2d(graft::relu(conv2(h)), {.kernel = 2});
    return classify(graft::flatten(h));
  }
  GRAFT_MODULE(conv1, conv2, classify)
};

int main() {
  ConvNet net;
  graft::initialise(net, 1);
  Images images(3, 1, 8, 8);
  for (int i = 0; i < images.size(); ++i) images.data()[i] = float(i % 7) - 3;

  const auto base = net(images);  // tensors in, tensors out
  std::cout << "scores: " << base.dimension(0) << " x " << base.dimension(1) << '\n';

  const graft::LoraConfig lora{.r = 2, .target_modules = {"conv1", "conv2", "classify"},
                               .init_lora_weights = false};
  graft::inject_adapter_in_model(lora, net, "sharp");
  const graft::Ia3Config ia3{.target_modules = {"conv1", "conv2"}, .feedforward_modules = {"conv2"},
                             .init_ia3_weights = false};
  graft::inject_adapter_in_model(ia3, net, "soft");
  for (const char* name : {"lora_A", "lora_B"})
    std::cout << name << ' ' << graft::to_string(net.conv2.parameter("sharp", name).shape()) << '\n';
  std::cout << "ia3_l " << graft::to_string(net.conv2.parameter("soft", "ia3_l").shape()) << '\n';

  // One batch: the first image with LoRA, the second with the base, the third with IA3. A row is an image.
  graft::Batch batch;
  batch.add(1, graft::select(net, {{"sharp"}}));
  batch.add(1, graft::base_only());
  batch.add(1, graft::select(net, {{"soft"}}));
  const auto mixed = net(batch.input(images));

  const auto row_of = [](const auto& scores, int row) { return graft::in(scores.data(), 3, 10).row(row); };
  graft::set_adapter(net, "sharp");
  const auto sharp = net(images);
  graft::set_adapter(net, "soft");
  const auto soft = net(images);
  std::cout << std::boolalpha
            << "image 0 is LoRA's:    " << mixed.value().row(0).isApprox(row_of(sharp, 0), 1e-5f) << '\n'
            << "image 1 is the base's: " << mixed.value().row(1).isApprox(row_of(base, 1), 1e-5f) << '\n'
            << "image 2 is IA3's:      " << mixed.value().row(2).isApprox(row_of(soft, 2), 1e-5f) << '\n'
            << "and they differ:       " << !row_of(soft, 2).isApprox(row_of(base, 2), 1e-3f) << '\n';
}
