# Builds biassweep-fuzz with a sanitizer; sourced by scripts/fuzz and scripts/sanitize, which run in
# the project's directory.
# shellcheck shell=bash

# Swift's own backtraces of a crash take a minute each, and the sanitizers print theirs.
export SWIFT_BACKTRACE=enable=no

# Prints the path of libFuzzer without its main function; fails where there is none.
fuzzer_library() {
  local swift library
  swift=$(readlink -f "$(command -v swift)")
  for library in "$(dirname "$swift")"/../lib/clang/*/lib/*/libclang_rt.fuzzer_no_main-"$(uname -m)".a \
    "$(dirname "$swift")"/../lib/clang/*/lib/"$(uname -m)"-unknown-linux-gnu/libclang_rt.fuzzer_no_main.a; do
    if [[ -e $library ]]; then
      printf '%s\n' "$library"
      return 0
    fi
  done
  return 1
}

# Builds with sanitizer $1 (thread, address), and guided by coverage if $2 is libFuzzer's path. The
# program's path is left in $sanitized. Unoptimised: a sanitizer sees more, and the build is short.
build_sanitized() {
  local kind=$1 library=${2-} scratch=.build/$1
  local arguments=(--sanitize="$kind" --scratch-path "$scratch" --product biassweep-fuzz)
  if [[ $library ]]; then
    arguments+=(
      -Xswiftc "-sanitize-coverage=edge,trace-cmp,inline-8bit-counters,pc-table"
      -Xlinker "$library" -Xlinker -u -Xlinker LLVMFuzzerRunDriver -Xlinker --export-dynamic
      -Xlinker -lstdc++)
  fi
  if [[ $kind == thread ]]; then
    local clang mutex=$scratch/mutex.o
    clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
    mkdir -p "$scratch"
    "$clang" -fsanitize=thread -O1 -Wall -Werror -c scripts/thread-sanitizer-mutex.c -o "$mutex"
    arguments+=(-Xlinker "$mutex")
  fi
  # The linker has hundreds of warnings about the sanitizer's own symbols.
  if ! swift build "${arguments[@]}" 2>&1 | { grep -v 'Cannot export local symbol' || true; }; then
    echo "the build with the $kind sanitizer failed; what the compiler said stands above" >&2
    return 1
  fi
  # shellcheck disable=SC2034 # for the scripts that source this
  sanitized=$scratch/debug/biassweep-fuzz
}
