# Set-up shared by scripts/biassweep, scripts/test and cluster/local.sh, which source this file:
# Swift, system libraries, release build, model and data. Every step does nothing when its result
# is there already. Messages go to stderr; whatever cannot be set up ends the script with status 2.
# shellcheck shell=bash

project=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
binary=$project/.build/release/biassweep
# Written after a build with the time of the build's start; holds the instruction set built for.
stamp=$project/.build/biassweep-built

swift_major=6
swift_minor=2
default_model=SmolLM2-135M-Instruct

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
  say "$@"
  exit 2
}

# The preset or grid file that a command line names; empty if none or unknown, which the program
# itself then reports.
spec_of() {
  local file=''
  while (($#)); do
    case $1 in
      --preset) file=$project/Sources/StudyDocuments/Presets/${2-}.yaml ;;
      --preset=*) file=$project/Sources/StudyDocuments/Presets/${1#*=}.yaml ;;
      --grid) file=${2-} ;;
      --grid=*) file=${1#*=} ;;
    esac
    shift
  done
  if [[ -f $file ]]; then printf '%s\n' "$file"; fi
}

require_swift() {
  local version=''
  if command -v swift >/dev/null; then version=$(swift --version 2>/dev/null || true); fi
  if [[ $version =~ Swift\ version\ ([0-9]+)\.([0-9]+) ]]; then
    local major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]}
    if ((major > swift_major || (major == swift_major && minor >= swift_minor))); then return; fi
    version="Swift $major.$minor is too old"
  else
    version="Swift was not found"
  fi
  fail "$version; BiasSweep needs Swift $swift_major.$swift_minor or newer. Install it from" \
    "https://www.swift.org/install/linux/ (with swiftly: \`swiftly install latest\`), make sure" \
    "that \`swift --version\` works in this shell, and give the same command again."
}

# Whether a C program can include header $1 and link library $2.
links() {
  local swift compiler='' candidate directory status=0
  swift=$(command -v swift)
  for candidate in "$(dirname "$swift")/clang" "$(dirname "$(readlink -f "$swift")")/clang" clang cc
  do
    if command -v "$candidate" >/dev/null; then compiler=$candidate && break; fi
  done
  [[ $compiler ]] || return 1
  directory=$(mktemp -d)
  printf '#include <%s>\nint main(void) { return 0; }\n' "$1" >"$directory/probe.c"
  "$compiler" "$directory/probe.c" "-l$2" -o "$directory/probe" >/dev/null 2>&1 || status=1
  rm -rf "$directory"
  return "$status"
}

# Prints the Debian packages that building and fetching need and that are missing, one a line.
missing_packages() {
  links sqlite3.h sqlite3 || echo libsqlite3-dev
  links cblas.h openblas || echo libopenblas-dev
  command -v pkg-config >/dev/null || echo pkg-config
  python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
}

install_packages() {
  local missing root=()
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then return; fi
  if ((EUID != 0)); then root=(sudo -n); fi
  if ! command -v apt-get >/dev/null; then
    fail "these are missing: ${missing[*]} (their names on Debian and Ubuntu). Install them with" \
      "this system's package manager and give the same command again."
  fi
  if ((EUID != 0)) && ! sudo -n true 2>/dev/null; then
    fail "these system packages are missing, and installing them needs root: ${missing[*]}. Run" \
      "\`sudo apt-get install ${missing[*]}\` and give the same command again."
  fi
  say "installing ${missing[*]} with apt-get"
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300
    install --no-install-recommends "${missing[@]}")
  # The package lists are refreshed only if they do not do as they are.
  "${root[@]}" "${install[@]}" >&2 ||
    { "${root[@]}" apt-get -q update >&2 && "${root[@]}" "${install[@]}" >&2; } ||
    fail "apt-get could not install ${missing[*]} (see above). Install them by hand and give the" \
      "same command again."
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]})); then
    fail "apt-get installed its packages, but these still do not work: ${missing[*]}. Check that" \
      "the C compiler of Swift (clang) finds their headers and libraries."
  fi
}

# Vector code is built for AVX2 (see Package.swift); a processor without it gets the baseline.
choose_instruction_set() {
  if [[ ${BIASSWEEP_PORTABLE-} || $(uname -m) != x86_64 || ! -r /proc/cpuinfo ]]; then return; fi
  local flag flags
  flags=$(grep -m 1 '^flags' /proc/cpuinfo || true)
  for flag in avx2 fma bmi2; do
    [[ " $flags " == *" $flag "* ]] || export BIASSWEEP_PORTABLE=1
  done
}

is_built() {
  [[ -x $binary && -e $stamp && $(<"$stamp") == "${BIASSWEEP_PORTABLE-}" ]] &&
    [[ -z $(find "$project/Package.swift" "$project/Sources" -newer "$stamp" -print -quit) ]]
}

# Builds what the arguments of `swift build` say, in release mode.
build() {
  local started
  mkdir -p "$project/.build"
  started=$(mktemp "$project/.build/biassweep-built.XXXXXX")
  printf '%s\n' "${BIASSWEEP_PORTABLE-}" >"$started"
  if ! swift build --package-path "$project" -c release "$@" >&2; then
    rm -f "$started"
    fail "the build failed (see above). The first one fetches Swift packages from GitHub and" \
      "needs about 3 GB of disk space; give the same command again to go on with it."
  fi
  mv -f "$started" "$stamp"
}

# Makes $binary current: Swift, libraries and build, or nothing if no source has changed.
prepare_binary() {
  choose_instruction_set
  if is_built; then return 0; fi
  require_swift
  install_packages
  if [[ -x $binary ]]; then
    say "building again, because the sources have changed"
  else
    say "building the release binary; this happens once and takes some 10 minutes on 2 cores"
  fi
  build --product biassweep
}

# Fetches the model and the data that spec file $1 needs; without one, those of preset smoke. Of a
# user's own file only the model is read: it gets the data of all ten tasks.
fetch_inputs() {
  local presets=$project/Sources/StudyDocuments/Presets preset=smoke model
  local spec=${1:-$presets/smoke.yaml}
  model=$(sed -nE 's/^model:[[:space:]]*["'\'']?([^"'\''#]*[^"'\''#[:space:]]).*/\1/p' "$spec")
  if [[ ${model:-$default_model} == "$default_model" ]]; then
    "$project/scripts/fetch-model" >/dev/null || exit 2
  fi
  if [[ ${spec%/*} == "$presets" ]]; then preset=$(basename "$spec" .yaml); else preset=quick; fi
  "$project/scripts/fetch-data" --preset "$preset" >/dev/null || exit 2
}
