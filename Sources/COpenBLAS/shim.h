#pragma once

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

// Not in cblas.h of every version.
char *openblas_get_corename(void);
void gotoblas_dynamic_init(void) __attribute__((weak));
void gotoblas_dynamic_quit(void) __attribute__((weak));

/// Makes OpenBLAS use the kernels that fit this processor. Version 0.3.21 falls back to those of
/// 2004 on processors that are newer than itself. Does nothing if OPENBLAS_CORETYPE is set or the
/// library was built for one processor. No product may be running.
static inline void openblas_use_fitting_kernels(void) {
#if defined(__x86_64__)
  if (getenv("OPENBLAS_CORETYPE") || !gotoblas_dynamic_init || !gotoblas_dynamic_quit) return;
  if (strcmp(openblas_get_corename(), "Prescott") != 0) return;
  const char *fitting = __builtin_cpu_supports("avx512f") ? "SKYLAKEX"
                        : __builtin_cpu_supports("avx2")  ? "HASWELL"
                                                          : NULL;
  if (!fitting) return;
  setenv("OPENBLAS_CORETYPE", fitting, 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  unsetenv("OPENBLAS_CORETYPE");
#endif
}
