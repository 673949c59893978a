/* Loops over arrays of vectors that stay in registers: all of their steps behind each other. */
#ifndef KERNELS_SIMD_UNROLL_H
#define KERNELS_SIMD_UNROLL_H

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* A pointer that goes from row to row as written: compilers know all rows' offsets at once otherwise,
 * and keep them on the stack. */
#define STEPWISE(pointer) __asm__("" : "+r"(pointer))

#endif
