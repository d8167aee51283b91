# What the tools share: finds what the build needs, or installs it from Debian's packages; configures; builds.
# Read by `.` with the checkout as the working directory.

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

on_debian() { [ "$packages_from_apt" = yes ]; }

if command -v apt-get >/dev/null 2>&1 && command -v dpkg-query >/dev/null 2>&1; then
  packages_from_apt=yes
  wraps=--wrap-mode=nofallback
  # Debian's own Meson, Ninja, pkg-config and compiler, even where others stand first in the path.
  PATH="/usr/bin:/bin:$PATH"
  export CXX="${CXX:-g++}"
else
  packages_from_apt=no
  wraps=--wrap-mode=default
  export CXX="${CXX:-c++}"
fi

# require_packages PACKAGE...: on Debian, installs those that are missing. Touches the network only then.
require_packages() {
  missing=
  for package; do
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
      *' ok installed') ;;
      *) missing="$missing $package" ;;
    esac
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" -eq 0 ]; then
    as_root=
  elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
  else
    die "missing Debian packages, and neither root nor sudo to install them. Run as root:
  apt-get install$missing"
  fi
  say "installing Debian packages:$missing"
  apt_get="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300"
  # A source of packages that cannot be reached is no reason to stop: the next line says if one matters.
  $apt_get update </dev/null || true
  # shellcheck disable=SC2086
  $apt_get install --no-install-recommends $missing </dev/null ||
    die "could not install the packages above. Run as root:
  apt-get install$missing"
}

# require_programs: elsewhere, names what to install; the libraries then come from the system or from Meson's wraps.
require_programs() {
  missing=
  command -v "${CXX%% *}" >/dev/null 2>&1 || missing="$missing, a C++20 compiler (GCC 12 or clang 16, or newer)"
  command -v meson >/dev/null 2>&1 || missing="$missing, Meson (1.0 or newer)"
  command -v ninja >/dev/null 2>&1 || command -v ninja-build >/dev/null 2>&1 || missing="$missing, Ninja"
  [ -z "$missing" ] || die "missing: ${missing#, }
This system has no apt-get, so please install them yourself, for example
  Fedora       dnf install gcc-c++ meson ninja-build pkgconf
  Arch Linux   pacman -S gcc meson ninja pkgconf
  openSUSE     zypper install gcc-c++ meson ninja pkgconf
  macOS        brew install meson ninja pkgconf
Libraries are taken from the system where it has them ($1) and
are downloaded by Meson (subprojects/*.wrap) where it does not."
}

# Debian's Meson must not pick up modules of another one that pip installed.
run_meson() {
  if on_debian; then
    PYTHONNOUSERSITE=1 PYTHONPATH=/usr/lib/python3/dist-packages /usr/bin/meson "$@"
  else
    meson "$@"
  fi
}

# configure FOLDER OPTION...: nothing if FOLDER was configured so before. A file that came or went configures
# again; another compiler, Meson, option or place of the checkout starts the folder afresh.
configure() {
  folder=$1
  shift
  toolchain="$PWD|$(run_meson --version)|$CXX|$($CXX --version | head -n 1)|${CXXFLAGS-}|$wraps $*"
  files=$(find tests examples benchmarks -name '*.cpp' | LC_ALL=C sort)
  stamp=$folder/configured
  if [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$toolchain" ]; then
    rm -rf "$folder"
    run_meson setup "$folder" "$wraps" "$@" </dev/null || return 1
  elif [ "$(tail -n +2 "$stamp")" != "$files" ]; then
    run_meson setup --reconfigure "$folder" </dev/null || return 1
  fi
  printf '%s\n%s\n' "$toolchain" "$files" >"$stamp"
}
