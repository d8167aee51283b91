#pragma once

/// Every file of a program compiles anew what it uses of graft, and the linker keeps one of the copies. A program of several
/// files can have most of it compiled once: all of its files are compiled with `GRAFT_EXTERN_TEMPLATES`, and one file defines
/// `GRAFT_INSTANTIATE` before it includes what the others include.
///
/// `GRAFT_SHARED_FUNCTION(f<T>)` and `GRAFT_SHARED_CLASS(C<T>)`, in the namespace of the template and behind its
/// definition, say what is shared so: templates over graft's own types.
#if defined(GRAFT_INSTANTIATE)
#define GRAFT_SHARED_FUNCTION(...) template decltype(__VA_ARGS__) __VA_ARGS__;
#define GRAFT_SHARED_CLASS(...) template class __VA_ARGS__;
#elif defined(GRAFT_EXTERN_TEMPLATES)
#define GRAFT_SHARED_FUNCTION(...) extern template decltype(__VA_ARGS__) __VA_ARGS__;
#define GRAFT_SHARED_CLASS(...) extern template class __VA_ARGS__;
#else
#define GRAFT_SHARED_FUNCTION(...)
#define GRAFT_SHARED_CLASS(...)
#endif
