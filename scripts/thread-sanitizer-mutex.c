// Swift's Mutex on Linux as ThreadSanitizer can follow it; linked into the build of
// `scripts/sanitize thread` only.
//
// A Mutex that is free is taken by inlined code, which the compiler instruments. One that is held is
// waited for inside libswiftSynchronization, which is not instrumented: the sanitizer misses the
// acquisition, and reports whatever the lock guards as a race. This definition takes the place of the
// library's. Waiting by yielding never marks the lock as waited for, so that it is also always released
// by the inlined code.

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

// Synchronization._MutexHandle._lockSlow(UInt32) -> (): self is the address of the lock's word, which is
// 0 or the thread that holds it.
__attribute__((swiftcall)) void lock_slow(
    uint32_t thread, __attribute__((swift_context)) _Atomic(uint32_t) *word)
    __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");

__attribute__((swiftcall)) void lock_slow(
    uint32_t thread, __attribute__((swift_context)) _Atomic(uint32_t) *word) {
  for (;;) {
    uint32_t nobody = 0;
    if (atomic_compare_exchange_weak_explicit(
            word, &nobody, thread, memory_order_acquire, memory_order_relaxed))
      return;
    sched_yield();
  }
}
