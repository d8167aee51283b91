#pragma once

// The interface of a peer: a shared object of its own, loaded with RTLD_LOCAL and RTLD_DEEPBIND, so that several BLAS
// libraries and Eigen at several instruction sets live in one process without meeting.

/// What a peer may be asked to compute. All matrices are contiguous and row-major.
enum PeerOperation {
  peer_product,          ///< y (n, out) = x (n, in) w (out, in)^T
  peer_lora_products,    ///< y = x w^T; u = scale x a^T; y += u b^T: three products
  peer_lora_expression,  ///< the same as one expression, as one writes it
  peer_mixed_loop,       ///< for each adapter: its rows gathered, scale (x a^T) b^T, added to those rows of y
  peer_merge,            ///< w += scale b a; the sign turns from call to call
  peer_merge_formed,     ///< d = b a; d *= scale; w += d; the sign turns from call to call
  peer_norm_formed       ///< y (out) = the norm of each row of w + scale b a, which is formed
};

struct PeerJob {
  PeerOperation operation;
  bool is_double;
  long n, in, out, r;
  const void* x;
  void* w;
  const void *a, *b;  ///< (r, in), (out, r)
  void* y;
  double scale;
  long adapters;  ///< of the mixed loop, and so many matrices in each of the next two
  const void* const *adapter_a, *const *adapter_b;
  const int* adapter_of_row;
};

struct PeerApi {
  const char* name;
  const char* (*version)();
  void* (*prepare)(const PeerJob*);  ///< null: it does not do that
  void (*run)(void*);
  void (*release)(void*);
};

extern "C" __attribute__((visibility("default"))) const PeerApi* paired_peer();
