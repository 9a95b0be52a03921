// NoMoreDescriptors: as long as it lives, its process gets no further file descriptor.
#pragma once

#include <sys/resource.h>

namespace ray {

// The checks of UBSan that come with ASan make a pipe to see whether memory may be read: without descriptors every object looks broken to them.
#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kSanitizerNeedsDescriptors = true;
#else
inline constexpr bool kSanitizerNeedsDescriptors = false;
#endif
inline constexpr char kWhyNotWithoutDescriptors[] =
    "the checks of this sanitizer need descriptors themselves; the release build runs this test";

class NoMoreDescriptors {
 public:
  NoMoreDescriptors() {
    getrlimit(RLIMIT_NOFILE, &usual_);
    rlimit none = usual_;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoMoreDescriptors() { setrlimit(RLIMIT_NOFILE, &usual_); }
  NoMoreDescriptors(const NoMoreDescriptors&) = delete;
  NoMoreDescriptors& operator=(const NoMoreDescriptors&) = delete;

 private:
  rlimit usual_{};
};

}  // namespace ray
