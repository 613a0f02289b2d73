// SPDX-License-Identifier: Apache-2.0
// Preloaded into the service by bench.py: counts allocations, and on SIGUSR1 writes the count to MALLOC_COUNT_FILE.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_ulong count;
static void *(*next_malloc)(size_t), *(*next_calloc)(size_t, size_t), *(*next_realloc)(void *, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void (*next_free)(void *);
static char early[65536];
static size_t early_used;

// dlsym itself may allocate while the real functions are being looked up.
static void *early_allocation(size_t size) {
  void *result = early + early_used;
  early_used += (size + 15) & ~(size_t)15;
  return early_used <= sizeof early ? result : NULL;
}

static int is_early(void *pointer) { return (char *)pointer >= early && (char *)pointer < early + sizeof early; }

static void write_count(int signal) {
  (void)signal;
  char text[32];
  int length = snprintf(text, sizeof text, "%lu\n", atomic_load(&count));
  int file = open(getenv("MALLOC_COUNT_FILE"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file >= 0) {
    if (write(file, text, (size_t)length) < 0) _exit(1);
    close(file);
  }
}

// At the first allocation, which may come before any constructor of ours.
static void begin(void) {
  static int begun;
  if (begun) return;
  begun = 1;
  next_calloc = dlsym(RTLD_NEXT, "calloc");
  next_realloc = dlsym(RTLD_NEXT, "realloc");
  next_free = dlsym(RTLD_NEXT, "free");
  next_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  next_malloc = dlsym(RTLD_NEXT, "malloc");
  signal(SIGUSR1, write_count);
}

void *malloc(size_t size) {
  if (!next_malloc) begin();
  if (!next_malloc) return early_allocation(size);
  atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
  return next_malloc(size);
}

void *calloc(size_t number, size_t size) {
  if (!next_calloc) begin();
  if (!next_calloc) return early_allocation(number * size);
  atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
  return next_calloc(number, size);
}

void *realloc(void *old, size_t size) {
  if (!next_realloc) begin();
  if (!next_realloc) return early_allocation(size);
  atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
  if (is_early(old)) {
    void *moved = next_malloc(size);
    return moved ? memcpy(moved, old, size) : NULL;
  }
  return next_realloc(old, size);
}

void free(void *old) {
  if (old && !is_early(old) && next_free) next_free(old);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  if (!next_posix_memalign) begin();
  atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
  return next_posix_memalign(result, alignment, size);
}
